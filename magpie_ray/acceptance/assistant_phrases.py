"""How an assistant begins, in several languages: the expressions that tell its voice from a user's.

What always holds: all are matched at the beginning of a message in lower case, with straight apostrophes.
"""

import re

_GREETING = r"(?:(?:hello|hi|hey|greetings|welcome|good (?:morning|afternoon|evening))(?: there)?[!,.]*\s*)?"

# An offer of help, or words about itself.
OFFERS = re.compile(
    "|".join(
        (
            rf"{_GREETING}(?:how|what) (?:can|may|could) i (?:help|assist|do for) you",
            rf"{_GREETING}i'm here to (?:help|assist)",
            rf"{_GREETING}i(?:'m| am) (?:just |only |merely )?an? (?:\w+ )?"
            r"(?:ai|artificial intelligence|language model|large language)(?: language)?[ -]?(?:model"
            r"|assistant|chatbot|[,.!])",
            r"you(?:'re| are) (?:very |most |so |quite )?welcome[!.,]",
            r"as an? (?:large |helpful |responsible )?(?:ai|artificial intelligence"
            r"|language model)(?:[ -]?(?:language )?"
            r"(?:model|assistant|chatbot|system))?,? i(?:'m| am| do| don't| cannot| can't| can| have"
            r"| strive| must| was)\b",
            r"i(?:'d| would|'m| am|'ll)? (?:be )?(?:more than )?(?:happy|glad|delighted) to (?:help"
            r"|assist)(?: you| with|[!.])",
            r"(?:i'm |i am )?(?:so |very )?glad (?:i could help|that helped|you (?:liked|enjoyed|found))",
            r"is there anything else (?:that )?i can",
            r"(?:could you |can you )?please (?:provide|share|paste|give me"
            r"|send)\b[^.?!\n]{0,80}\b(?:you would like me|you'd like me"
            r"|you want me|so (?:that )?i can|you(?:'re| are) having|you need help)",
            r"it (?:looks|seems|appears)(?: like| that)? (?:you (?:haven't|have not|didn't|forgot|left)"
            r"|your message)",
            r"¡?(?:hola)?[!,. ]*¿?en qué puedo ayudar",
            r"como (?:un )?(?:modelo de lenguaje|asistente|ia|inteligencia artificial"
            r"|modelo de linguagem)\b[^.]{0,30}, (?:no|não|eu)",
            r"(?:bonjour)?[ !,.]*(?:comment|en quoi) puis-je (?:vous|t'|te) ?aider",
            r"en tant (?:que|qu') ?(?:modèle de langage|assistant|ia"
            r"|intelligence artificielle)\b[^.]{0,30}, je",
            r"(?:hallo|guten tag)?[ !,.]*(?:wie|womit) kann ich (?:ihnen|dir"
            r"|euch)(?: heute)? (?:behilflich|helfen|weiterhelfen)",
            r"als (?:eine? )?(?:ki|künstliche intelligenz|sprachmodell"
            r"|großes sprachmodell)[\w-]*,? (?:habe|kann|bin|verfüge|besitze) ich",
            r"(?:ciao|salve|buongiorno)?[ !,.]*come posso (?:aiutar|esser)",
            r"(?:ol[áa]|oi)?[ !,.]*(?:como|em que) posso (?:te |lhe |o )?ajudar",
            r"(?:здравствуйте|привет)?[ !,.]*(?:чем|как) (?:я )?могу (?:я )?(?:вам |тебе )?помочь",
            r"как (?:языковая модель|искусственный интеллект|ии)\b[^.]{0,30}, (?:я|у меня)",
            r"(?:你好|您好|嗨)?[！!，, ]*(?:请问)?(?:今天)?(?:有什么|我(?:可以|能)(?:怎么|如何|为您|帮))"
            r"[^。？]{0,12}(?:帮|效劳|服务)",
            r"作为(?:一个|一名|一款)?(?:大型)?(?:人工智能|ai|语言模型|智能助手)[^，。]{0,12}，?我",
            r"(?:こんにちは|はじめまして)?[！!、。 ]*(?:今日は|本日は)?(?:どのように|何か|何を)?"
            r"お(?:手伝い|役に立て)",
            r"(?:안녕하세요)?[!,. ]*(?:오늘 )?(?:무엇을|어떻게|어떤 것을) 도와",
            r"(?:مرحب[اً]+|أهل[اً]+)?[ !،.]*كيف (?:يمكنني|أستطيع) (?:مساعدت|أن أساعد)",
        )
    )
)

# A reply that introduces what was asked for. What is the speaker's own ("here is my code") is no such thing.
REPLIES = re.compile(
    "|".join(
        (
            r"(?:sure|sure thing|certainly|of course|absolutely|definitely|great"
            r"|no problem)[!,.:]+ *(?:here(?:'s| is| are)\b"
            r"(?! (?:my|our|mine|what i|the (?:code|error|file|text|link|log|output|full|traceback)))"
            r"|i(?:'d| would|'ll| can|'m| am) (?:be )?(?:\w+ ){0,2}(?:happy|glad|help)|below (?:is|are)"
            r"|let me (?:help|explain))",
            r"(?:that's an? |what an? |an? )?(?:great|good|excellent|interesting|fascinating) question[!.]",
            r"¡?(?:claro|por supuesto|desde luego)(?: que sí)?[!,. ]+aquí (?:tienes|está|hay|va)",
            r"(?:bien sûr|certainement|avec plaisir)[ !,.]+voici",
            r"(?:natürlich|gerne|selbstverständlich|klar)[ !,.]+hier (?:ist|sind)(?! mein)",
            r"(?:certo|certamente|ecco)[ !,.]+(?:ecco|di seguito)(?! il mio| la mia)",
            r"(?:claro|com certeza|certamente)[ !,.]+(?:aqui (?:está|estão|vai)|segue)",
            r"(?:конечно|разумеется)[ !,.]+вот(?! мо)",
            r"(?:当然(?:可以)?|好的|没问题)[！!，,。 ]+(?:以下|下面|这里|这是)(?!是我的)",
            r"(?:もちろん(?:です)?|はい|承知しました)[！!、。 ]+(?:以下|こちら|次)",
            r"(?:물론(?:입니다|이죠)?|네)[!,. ]+(?:다음은|여기|아래)",
        )
    )
)

_SORRY = (
    r"(?:(?:i'm|i am|we're|so|very)?,? ?(?:really |very |truly |so )*sorry|i apologi[sz]e"
    r"|(?:my )?apologies|unfortunately|regrettably"
    r"|as an? [^,.!?\n]{2,40})[^.!?\n]{0,60}?[,.;: ]*(?:but )?(?:as an? [^,.!?\n]{2,40},? )?"
)
_CANNOT = (
    r"i(?:'m| am)? ?(?:just )?(?:can't|cannot|can not|won't|will not|must|unable to|not able to"
    r"|won't be able to"
    r"|not comfortable|do not feel comfortable|don't feel comfortable)(?: be able to)? "
)
_DECLINED = (
    r"(?:assist\b(?! (?:my|the))|comply|fulfil|help (?:you\b(?! (?:if|unless))|with (?:that|this|your|any"
    r"|such|hacking|illegal))|decline\b"
    r"|satisfy your"
    r"|(?:provide|generate|creat|produc|writ|engag|participat|discuss|shar|offer|support|promot|answer"
    r"|respond|complet|continu|giv|access"
    r"|help|describ)\w*\b[^.?!\n]{0,40}?\b(?:that|this|your|requests?|content|information|instructions?"
    r"|advice|explicit|guidance"
    r"|discussions?|conversations?|violence|weapons?|illegal|harmful|sensitive|personal|the help))"
)
REFUSALS = re.compile(
    "|".join(
        (
            rf"(?:{_SORRY})?{_CANNOT}{_DECLINED}",
            r"(?:lo siento|lo lamento|disculp[ae]|perd[oó]n)?[,. ]*(?:pero )?no puedo (?:ayudar"
            r"|proporcionar|cumplir|responder a"
            r"|generar|ofrecer|asistir|brindar|participar en)",
            r"(?:(?:je suis )?désolée?|malheureusement)?[,. ]*(?:mais )?je ne (?:peux"
            r"|suis) pas (?:en mesure de )?(?:vous |t')?"
            r"(?:aider|fournir|répondre|générer|satisfaire|accéder)",
            r"(?:es tut mir (?:wirklich )?leid|tut mir leid|entschuldigung|leider"
            r"|verzeihung)[,. ]*(?:aber )?(?:ich kann|kann ich|das kann ich)"
            r"[^.?!\n]{0,60}(?:helfen|erfüllen|geben|weiterhelfen|bereitstellen|beantworten|unterstützen)\b",
            r"(?:mi dispiace|spiacente|purtroppo)?[,. ]*(?:ma )?non posso (?:aiutar|fornir|rispondere a"
            r"|soddisfare|generare)",
            r"(?:desculpe|sinto muito|lamento|infelizmente)?[,. ]*(?:mas )?(?:eu )?não posso (?:ajudar"
            r"|fornecer|responder a|atender|gerar)",
            r"(?:het spijt me|sorry|helaas)[,. ]*(?:maar )?(?:ik kan|kan ik"
            r"|dat kan ik)[^.?!\n]{0,60}(?:helpen|geven|verstrekken|beantwoorden)\b",
            r"(?:извините|простите|к сожалению|прошу прощения"
            r"|мне (?:очень )?жаль)[,. ]*(?:но )?я не (?:могу|смогу|в состоянии) "
            r"(?:вам )?(?:помочь|предоставить|выполнить|ответить|обсуждать|создать)",
            r"(?:przykro mi|przepraszam|niestety)[,. ]*(?:ale )?nie mogę [^.?!\n]{0,30}(?:pomóc|udzielić"
            r"|spełnić|odpowiedzieć)",
            r"(?:üzgünüm|maalesef|kusura bakmayın)[^.?!\n]{0,60}(?:yardımcı olama|sağlayama|vereme"
            r"|yerine getireme)",
            r"(?:很|非常|十分)?(?:抱歉|对不起|遗憾|對不起)[，,。 ]*(?:但)?(?:是)?(?:作为[^，。]{2,20}，?)?我?"
            r"(?:无法|不能|不可以|没办法|無法)"
            r"[^？?。]{0,10}(?:提供|协助|帮助|帮您|满足|回答|完成您|生成|执行|讨论|協助|滿足)",
            r"申し訳(?:ありません|ございません)(?:が|、|。)?[^？?。]{0,40}(?:できません|応えできません|かねます|できかねます)",
            r"(?:죄송하지만|죄송합니다|미안하지만|죄송합니다만)[^?]{0,60}"
            r"(?:수 없습니다|어렵습니다|수가 없습니다)",
            r"(?:عذر[اً]+|آسف|أعتذر|للأسف)[^؟?.]{0,20}لا (?:أستطيع|يمكنني)[^؟?.]{0,20}(?:مساعد|تقديم|تلبية)",
            r"(?:maaf|mohon maaf)[,. ]*(?:tetapi |tapi )?saya tidak (?:dapat|bisa) (?:membantu|memberikan"
            r"|memenuhi)",
            r"xin lỗi[,. ]*(?:nhưng )?tôi không thể (?:giúp|hỗ trợ|cung cấp)",
            r"(?:tyvärr|jag är ledsen|beklager|desværre)[,. ]*(?:men )?(?:jag kan|kan jag|jeg kan"
            r"|kan jeg)(?: inte| ikke)[^.?!\n]{0,30}hj[äæ]lp",
        )
    )
)
