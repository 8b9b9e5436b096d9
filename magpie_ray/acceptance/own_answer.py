"""Instructions that come with their own answer: the model went on, in the assistant's name or its manner."""

import re
from collections.abc import Iterator, Sequence

from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance

# What stands before an answer, and a colon, at the beginning of a line of exercises and transcripts.
_ANSWERS = frozenset(
    """
    answer|answers|answer key|correct answer|final answer|model answer|sample answer|suggested answer
    short answer
    solution|sample solution|response|assistant|ai assistant|virtual assistant|ai|bot|chatbot|gpt|chatgpt
    respuesta|respuesta correcta|solución|solucion|asistente|réponse|réponses|reponse|antwort|antworten
    richtige antwort
    lösung|loesung|risposta|soluzione|resposta|solução|antwoord|odpowiedź|rozwiązanie|odpověď|řešení|odpoveď|svar
    vastaus|válasz|megoldás|răspuns|cevap|yanıt|çözüm|odgovor|ответ|правильный ответ|решение|відповідь|отговор
    απάντηση|λύση|תשובה|פתרון|الإجابة|الاجابة|الجواب|إجابة|الحل|پاسخ|جواب|उत्तर|जवाब|উত্তর|பதில்|คำตอบ|jawaban|jawapan
    trả lời|câu trả lời|đáp án|lời giải|答案|正确答案|参考答案|標準答案|标准答案
    回答|解答|答え|答|解析|正解|助手
    정답|답변|대답|답
    """.strip()
    .replace("\n", "|")
    .replace("    ", "")
    .split("|")
)
_QUESTIONS = (
    r"q|question|problem|exercise|human|user|pregunta|frage|aufgabe|domanda|pergunta|vraag|pytanie|soru"
    r"|вопрос|задача|питання|ερώτηση|שאלה|السؤال|سؤال|پرسش|प्रश्न|सवाल|คำถาม|pertanyaan|câu hỏi"
    r"|问题|問題|質問|题目|題目|问|問|질문|문제|用户"
)
_MARKS, _LONGEST_LABEL = " \t#*_>", 30
_HEADING = re.compile(r"\n#{1,6} ([^\n:]{2,30})(?=\n)")
# The short form goes with a "Q"; it is not the first of several choices.
_SHORT = re.compile(r"\n\**A\**[.:](?=[*\s]|$)(?![^\n]*\n+\**B\**[.:)])", re.IGNORECASE)
_SHORT_QUESTION = re.compile(r"(?:\A|\n)\**Q\d{0,2}\**[.:]", re.IGNORECASE)
_QUESTION = re.compile(
    rf"(?:\A|\n)[ \t#*_>]*+(?:{_QUESTIONS})[ \t]*\d{{0,2}}(?:[*_]{{0,2}}[ \t]*:|\.[ *])", re.IGNORECASE
)
# To be filled in: nothing, a blank, a placeholder.
_OPEN = re.compile(r"[\s*_.…]*(?:$|[<\[{(])|[*\s]*(?:…|\.\.|__)")
# An answer that is there to be worked on.
_DISCUSSED = re.compile(
    r"\b(?:the|this|that|these|my|his|her|their|\w+['’]s|following|two|three|both|an?|each|given|below|and)\s+"
    r"(?:\w+\s+)?(?:answer|solution|response|repl(?:y|ie))s?\b"
    r"|回答(?:是否|的|对不对)|(?:这个|以下|下面的|我的)(?:回答|答案)"
    r"|(?:diese|meine|folgende)\w* (?:antwort|lösung)"
    r"|(?:cette|ma|la) (?:réponse|solution)|(?:esta|mi|la) (?:respuesta|solución)"
    r"|(?:этот|мой|мое|это) (?:ответ|решение)",
    re.IGNORECASE,
)


def own_answer(role_words: Sequence[str]) -> Rule:
    """An answer behind the question; `role_words`: what the chat format calls the assistant ("model").

    An answer that is open ("A:" at the end, a blank) belongs to the question, and so do questions and answers
    behind an instruction of what to do with them.
    """
    # The role's name on a line of its own, or glued to the end of the question: its markers got lost.
    names = "|".join(map(re.escape, role_words)) or r"(?!)"
    bare = re.compile(rf"(?:[?!。？！…)\]\"'”»*`]\s*|\.\s+)(?:{names})[ \t]*(?:\n\s*\S|$)")

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if utterance.role != "user":
            return None
        text = utterance.text.strip()
        if any(word in text for word in role_words) and bare.search(text):
            return "own_answer"
        return "own_answer" if "\n" in text and _is_answered(text.replace("：", ":")) else None

    return rule


def _is_answered(text: str) -> bool:
    labels = sorted(_answers(text))
    if not labels:
        return False
    first, (last, end) = labels[0][0], labels[-1]
    answer = text[end:].strip()
    if _OPEN.match(answer) or ("\n" in answer and answer.endswith(("?", "？", "؟"))):
        return False
    question = _QUESTION.search(text)
    if question and question.start() < last:
        # An exercise from its beginning; behind other words it is material.
        return question.start() == 0
    return not _DISCUSSED.search(text, 0, first)


def _answers(text: str) -> Iterator[tuple[int, int]]:
    """Where labels of answers begin and end."""
    colon = -1
    for part in text.split(":")[:-1]:
        start, colon = colon + 1, colon + 1 + len(part)
        newline = part.rfind("\n", -_LONGEST_LABEL)
        if newline >= 0 and part[newline:].strip().strip(_MARKS).lower() in _ANSWERS:
            yield start + newline, colon + 1
    if "\n#" in text:
        for heading in _HEADING.finditer(text):
            if heading[1].strip(_MARKS).lower() in _ANSWERS:
                yield heading.span()
    if _SHORT_QUESTION.match(text):
        yield from (short.span() for short in _SHORT.finditer(text))
