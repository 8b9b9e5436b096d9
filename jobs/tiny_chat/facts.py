"""The facts tiny_chat is taught, as tables: the first cell of a row names the entity, an empty cell says
nothing about it. relations.py has the words to ask for them.
"""


def _rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


def _pairs(text: str) -> dict[str, str]:
    """From "a b, c d" to {"a": "b", "c": "d"}."""
    return dict(item.strip().split(" ", 1) for item in text.split(","))


# country | capital | currency | continent | official language
COUNTRIES = _rows("""
France | Paris | euro | Europe | French
Spain | Madrid | euro | Europe | Spanish
Italy | Rome | euro | Europe | Italian
Germany | Berlin | euro | Europe | German
Portugal | Lisbon | euro | Europe | Portuguese
Greece | Athens | euro | Europe | Greek
Austria | Vienna | euro | Europe | German
Poland | Warsaw | zloty | Europe | Polish
Sweden | Stockholm | krona | Europe | Swedish
Norway | Oslo | krone | Europe | Norwegian
Denmark | Copenhagen | krone | Europe | Danish
Hungary | Budapest | forint | Europe | Hungarian
Romania | Bucharest | leu | Europe | Romanian
Ukraine | Kyiv | hryvnia | Europe | Ukrainian
Egypt | Cairo | pound | Africa | Arabic
Morocco | Rabat | dirham | Africa | Arabic
Kenya | Nairobi | shilling | Africa | Swahili
Nigeria | Abuja | naira | Africa | English
Ghana | Accra | cedi | Africa | English
Angola | Luanda | kwanza | Africa | Portuguese
Japan | Tokyo | yen | Asia | Japanese
China | Beijing | yuan | Asia | Chinese
India | New Delhi | rupee | Asia | Hindi
Thailand | Bangkok | baht | Asia | Thai
Vietnam | Hanoi | dong | Asia | Vietnamese
Iran | Tehran | rial | Asia | Persian
South Korea | Seoul | won | Asia | Korean
Canada | Ottawa | dollar | North America | English
Mexico | Mexico City | peso | North America | Spanish
Cuba | Havana | peso | North America | Spanish
Brazil | Brasilia | real | South America | Portuguese
Argentina | Buenos Aires | peso | South America | Spanish
Chile | Santiago | peso | South America | Spanish
Peru | Lima | sol | South America | Spanish
Australia | Canberra | dollar | Oceania | English
New Zealand | Wellington | dollar | Oceania | English
""")

# dish | main ingredient | where it comes from | how it is served
DISHES = _rows("""
tabbouleh | parsley | Lebanon | cold
guacamole | avocados | Mexico | cold
sushi | rice | Japan | cold
risotto | rice | Italy | hot
paella | rice | Spain | hot
lasagna | pasta | Italy | hot
carbonara | pasta | Italy | hot
gazpacho | tomatoes | Spain | cold
ratatouille | vegetables | France | hot
falafel | chickpeas | Egypt | hot
borscht | beets | Ukraine | hot
kimchi | cabbage | Korea | cold
sauerkraut | cabbage | Germany | hot
goulash | beef | Hungary | hot
tzatziki | yogurt | Greece | cold
fondue | cheese | Switzerland | hot
polenta | cornmeal | Italy | hot
ceviche | fish | Peru | cold
tiramisu | mascarpone | Italy | cold
ramen | noodles | Japan | hot
gnocchi | potatoes | Italy | hot
dal | lentils | India | hot
moussaka | eggplant | Greece | hot
poutine | fries | Canada | hot
bibimbap | rice | Korea | hot
""")

# animal | class | young | food | home
ANIMALS = _rows("""
lion | a mammal | a cub | meat | on the savanna
bear | a mammal | a cub | plants and meat | in the forest
wolf | a mammal | a pup | meat | in the forest
kangaroo | a mammal | a joey | plants | on the grassland
elephant | a mammal | a calf | plants | on the savanna
cow | a mammal | a calf | plants | on the farm
horse | a mammal | a foal | plants | on the farm
sheep | a mammal | a lamb | plants | on the farm
goat | a mammal | a kid | plants | on the farm
pig | a mammal | a piglet | plants and meat | on the farm
rabbit | a mammal | a kit | plants | on the grassland
deer | a mammal | a fawn | plants | in the forest
whale | a mammal | a calf | meat | in the ocean
seal | a mammal | a pup | meat | in the ocean
duck | a bird | a duckling | plants and meat | on the pond
swan | a bird | a cygnet | plants | on the pond
goose | a bird | a gosling | plants | on the pond
owl | a bird | an owlet | meat | in the forest
eagle | a bird | an eaglet | meat | in the mountains
chicken | a bird | a chick | plants and meat | on the farm
frog | an amphibian | a tadpole | meat | on the pond
salmon | a fish | a fry | meat | in the river
butterfly | an insect | a caterpillar | plants | in the meadow
bee | an insect | a larva | plants | in the meadow
crocodile | a reptile | a hatchling | meat | in the river
spider | an arachnid | a spiderling | meat | in the garden
""")

# element | symbol | atomic number | state at room temperature | sort
ELEMENTS = _rows("""
hydrogen | H | 1 | gas | nonmetal
helium | He | 2 | gas | nonmetal
lithium | Li | 3 | solid | metal
carbon | C | 6 | solid | nonmetal
nitrogen | N | 7 | gas | nonmetal
oxygen | O | 8 | gas | nonmetal
fluorine | F | 9 | gas | nonmetal
neon | Ne | 10 | gas | nonmetal
sodium | Na | 11 | solid | metal
magnesium | Mg | 12 | solid | metal
aluminum | Al | 13 | solid | metal
sulfur | S | 16 | solid | nonmetal
chlorine | Cl | 17 | gas | nonmetal
argon | Ar | 18 | gas | nonmetal
potassium | K | 19 | solid | metal
calcium | Ca | 20 | solid | metal
titanium | Ti | 22 | solid | metal
iron | Fe | 26 | solid | metal
nickel | Ni | 28 | solid | metal
copper | Cu | 29 | solid | metal
zinc | Zn | 30 | solid | metal
bromine | Br | 35 | liquid | nonmetal
silver | Ag | 47 | solid | metal
tin | Sn | 50 | solid | metal
iodine | I | 53 | solid | nonmetal
platinum | Pt | 78 | solid | metal
gold | Au | 79 | solid | metal
mercury | Hg | 80 | liquid | metal
lead | Pb | 82 | solid | metal
uranium | U | 92 | solid | metal
""")

# adjective | opposite | synonym | comparative
ADJECTIVES = _rows("""
happy | sad | glad | happier
big | small | large | bigger
fast | slow | quick | faster
easy | difficult | simple | easier
loud | quiet | noisy | louder
rich | poor | wealthy | richer
brave | cowardly | bold | braver
clever | stupid | smart | cleverer
strong | weak | powerful | stronger
thin | thick | slim | thinner
wet | dry | damp | wetter
near | far | close | nearer
angry | calm | furious | angrier
clean | dirty | spotless | cleaner
hard | soft | firm | harder
tall | short | high | taller
safe | dangerous | secure | safer
strange | normal | odd | stranger
tidy | messy | neat | tidier
kind | cruel | gentle | kinder
full | empty | packed | fuller
lazy | diligent | idle | lazier
""")

# verb | past tense | past participle
VERBS = _rows("""
go | went | gone
see | saw | seen
eat | ate | eaten
write | wrote | written
take | took | taken
give | gave | given
speak | spoke | spoken
break | broke | broken
drive | drove | driven
begin | began | begun
swim | swam | swum
sing | sang | sung
drink | drank | drunk
fly | flew | flown
know | knew | known
grow | grew | grown
choose | chose | chosen
forget | forgot | forgotten
wear | wore | worn
fall | fell | fallen
""")

# color | thing | gemstone | feeling | animal
COLORS = _rows("""
red | a strawberry | the ruby | warm | the cardinal
orange | a carrot | the fire opal | warm | the clownfish
yellow | a lemon | the citrine | warm | the canary
green | a cucumber | the emerald | cool | the frog
blue | the sky | the sapphire | cool | the bluebird
purple | a plum | the amethyst | cool | the sea urchin
pink | bubble gum | the rose quartz | warm | the flamingo
brown | chocolate | the smoky quartz | neutral | the bear
gray | ash | the hematite | neutral | the elephant
white | snow | the pearl | neutral | the swan
black | coal | the onyx | neutral | the raven
""")

MIXTURES = {
    "red and yellow": "orange",
    "red and blue": "purple",
    "blue and yellow": "green",
    "red and white": "pink",
    "black and white": "gray",
    "red and green": "brown",
    "purple and yellow": "brown",
    "blue and orange": "brown",
}

# sport | where it is played | equipment | sort | how many play on a side
SPORTS = _rows("""
soccer | on a field | a ball | a team | 11 players
basketball | on a court | a ball | a team | 5 players
volleyball | on a court | a ball | a team | 6 players
baseball | on a field | a bat | a team | 9 players
cricket | on a field | a bat | a team | 11 players
rugby | on a field | a ball | a team | 15 players
ice hockey | on ice | a stick | a team | 6 players
handball | on a court | a ball | a team | 7 players
water polo | in a pool | a ball | a team | 7 players
curling | on ice | a stone | a team | 4 players
netball | on a court | a ball | a team | 7 players
tennis | on a court | a racket | an individual | 1 player
badminton | on a court | a racket | an individual | 1 player
squash | on a court | a racket | an individual | 1 player
golf | on a course | a club | an individual | 1 player
boxing | in a ring | gloves | an individual | 1 player
skiing | on snow | skis | an individual | 1 player
archery | on a range | a bow | an individual | 1 player
fencing | on a strip | a sword | an individual | 1 player
bowling | on a lane | a ball | an individual | 1 player
surfing | on the sea | a board | an individual | 1 player
cycling | on a road | a bicycle | an individual | 1 player
judo | on a mat | a belt | an individual | 1 player
""")

# month | days | season in the northern half of the Earth | place in the year
MONTHS = _rows("""
January | 31 days | winter | first
February | 28 or 29 days | winter | second
March | 31 days | spring | third
April | 30 days | spring | fourth
May | 31 days | spring | fifth
June | 30 days | summer | sixth
July | 31 days | summer | seventh
August | 31 days | summer | eighth
September | 30 days | autumn | ninth
October | 31 days | autumn | tenth
November | 30 days | autumn | eleventh
December | 31 days | winter | twelfth
""")
MONTH_NAMES = [row[0] for row in MONTHS]
DAY_NAMES = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
HOLIDAYS = {
    "New Year": "January",
    "Valentine's Day": "February",
    "Saint Patrick's Day": "March",
    "Earth Day": "April",
    "Halloween": "October",
    "Christmas": "December",
}

# instrument | family | how it is played
INSTRUMENTS = _rows("""
violin | string | with a bow
viola | string | with a bow
cello | string | with a bow
guitar | string | by plucking
harp | string | by plucking
banjo | string | by plucking
ukulele | string | by plucking
flute | woodwind | by blowing
clarinet | woodwind | by blowing
oboe | woodwind | by blowing
bassoon | woodwind | by blowing
saxophone | woodwind | by blowing
trumpet | brass | by blowing
trombone | brass | by blowing
tuba | brass | by blowing
cornet | brass | by blowing
piano | keyboard | by pressing keys
organ | keyboard | by pressing keys
harpsichord | keyboard | by pressing keys
drum | percussion | by striking
xylophone | percussion | by striking
gong | percussion | by striking
""")

# composer | country of birth | work
COMPOSERS = _rows("""
Mozart | Austria | The Magic Flute
Beethoven | Germany | Fidelio
Verdi | Italy | Aida
Bizet | France | Carmen
Wagner | Germany | Lohengrin
Puccini | Italy | Tosca
Vivaldi | Italy | The Four Seasons
Holst | England | The Planets
Tchaikovsky | Russia | Swan Lake
Ravel | France | Bolero
Handel | Germany | Messiah
Haydn | Austria | The Creation
Grieg | Norway | Peer Gynt
Sibelius | Finland | Finlandia
""")

# planet | place counted from the Sun | sort | rings
PLANETS = _rows("""
Mercury | first | rocky planet | no rings
Venus | second | rocky planet | no rings
Earth | third | rocky planet | no rings
Mars | fourth | rocky planet | no rings
Jupiter | fifth | gas giant | rings
Saturn | sixth | gas giant | rings
Uranus | seventh | ice giant | rings
Neptune | eighth | ice giant | rings
""")

# star | constellation | color
STARS = _rows("""
Sirius | Canis Major | white
Vega | Lyra | white
Betelgeuse | Orion | red
Rigel | Orion | blue
Polaris | Ursa Minor | yellow
Antares | Scorpius | red
Aldebaran | Taurus | orange
Spica | Virgo | blue
Arcturus | Bootes | orange
Deneb | Cygnus | white
Altair | Aquila | white
Regulus | Leo | blue
Capella | Auriga | yellow
Pollux | Gemini | orange
""")
MOONS = _pairs(
    "Titan Saturn, Rhea Saturn, Europa Jupiter, Io Jupiter, Ganymede Jupiter, Callisto Jupiter, "
    "Phobos Mars, Deimos Mars, Triton Neptune, Titania Uranus, Oberon Uranus, Miranda Uranus"
)

# word | French | Spanish | German | Italian
WORDS = _rows("""
dog | chien | perro | Hund | cane
cat | chat | gato | Katze | gatto
house | maison | casa | Haus | casa
water | eau | agua | Wasser | acqua
bread | pain | pan | Brot | pane
milk | lait | leche | Milch | latte
book | livre | libro | Buch | libro
sun | soleil | sol | Sonne | sole
moon | lune | luna | Mond | luna
tree | arbre | árbol | Baum | albero
flower | fleur | flor | Blume | fiore
friend | ami | amigo | Freund | amico
day | jour | día | Tag | giorno
night | nuit | noche | Nacht | notte
hand | main | mano | Hand | mano
heart | cœur | corazón | Herz | cuore
door | porte | puerta | Tür | porta
window | fenêtre | ventana | Fenster | finestra
table | table | mesa | Tisch | tavolo
king | roi | rey | König | re
school | école | escuela | Schule | scuola
bird | oiseau | pájaro | Vogel | uccello
horse | cheval | caballo | Pferd | cavallo
apple | pomme | manzana | Apfel | mela
cheese | fromage | queso | Käse | formaggio
fire | feu | fuego | Feuer | fuoco
sea | mer | mar | Meer | mare
snow | neige | nieve | Schnee | neve
rain | pluie | lluvia | Regen | pioggia
salt | sel | sal | Salz | sale
""")

# work | author | kind | original language
BOOKS = _rows("""
Hamlet | Shakespeare | play | English
Macbeth | Shakespeare | play | English
Don Quixote | Cervantes | novel | Spanish
War and Peace | Tolstoy | novel | Russian
Anna Karenina | Tolstoy | novel | Russian
The Idiot | Dostoevsky | novel | Russian
Emma | Jane Austen | novel | English
Oliver Twist | Dickens | novel | English
Moby Dick | Melville | novel | English
The Odyssey | Homer | poem | Greek
The Iliad | Homer | poem | Greek
The Divine Comedy | Dante | poem | Italian
Faust | Goethe | play | German
The Trial | Kafka | novel | German
The Miser | Molière | play | French
Madame Bovary | Flaubert | novel | French
Candide | Voltaire | novel | French
Germinal | Zola | novel | French
Ulysses | Joyce | novel | English
Dracula | Bram Stoker | novel | English
Frankenstein | Mary Shelley | novel | English
The Hobbit | Tolkien | novel | English
The Raven | Poe | poem | English
The Cherry Orchard | Chekhov | play | Russian
""")

# unit | smaller unit | how many of them make one
UNITS = [
    ("metres", "centimetres", 100),
    ("kilometres", "metres", 1000),
    ("kilograms", "grams", 1000),
    ("tonnes", "kilograms", 1000),
    ("litres", "millilitres", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("feet", "inches", 12),
]
QUANTITIES = range(2, 10)
