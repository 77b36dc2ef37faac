"""Sentences of our own for the metrics' goldens: plain ones, and ones that a tokenizer may stumble over."""
import random

PLAIN = """A brown dog sleeps on a red sofa.
Two children are flying a kite over the beach
a train passes under an old stone bridge .
The woman's umbrella isn't open, although it's raining.
Three men's bicycles lean against the baker's window.
They don't know what they've seen, and I'm not sure he'd tell.
A sign says "No Entry" beside the gate.
The shop called 'Blue Door' sells bread, milk,and eggs.
An old- fashioned radio stands on a well-kept shelf.
Is anybody in the boat?
What a view!
A grey cat;a white cat: both asleep...
The 5:45pm train leaves at 6 p.m. today.
Dr. Moreau lives at 12 Mill St. near the river.
They met on Elm Ave. at noon. It rained.
The corner of 2nd Ave. and Oak Blvd.
Parked before gate B.
A van waits at gate B. A man waves.
he stands at dock D
This is platform C.
the end of platform C.
lower case follows
The U.S. flag hangs beside a T.V. set
Cups for $4.50, or 3 for 10 euros (about 40% off).
A 22 3/4 inch board and 1/2 of a pie
call 555-0199 or (555) 555-0123 for pizza
A cannot-miss sale; they cannot lose, we're gonna win.
It's 10 o'clock, ma'am
the '90s look of rock'n'roll posters
Salt & pepper, R&B, AT&T and Q&A
a/c units, and/or fans w/o covers
WRITE IN CAPITALS. TWO DOGS RUN.
café au lait on a naïve painter’s table — “warm” … really
ten kids.one ball
look!no hands
  leading and   many    spaces
""".split("\n")

ODD = """(a) [b] {c} <d> <e f="g h"> </e>
:) :-( ;) =D :P 8) :/ :')
# 41 #41 #fun @home @5 me@post.org www.site.org http://site.org/a?b=c site.com.
&amp; &lt; &gt; & &&
* ** _ __ ~ ^ | \\ / // % + = ++ c++ C#
! !! ? ?? ?! !? . .. ... .... ..... , ,, ; :
- -- --- ---- ----- a-b a--b -a a- 4-5 -4 +4
' '' ''' ` `` " "" 's 'x' ''x'' `x' x' 'x
1,000 1,000.5 .5 5. 5.5.5 1/2/2003 3:15 16:9 4x4 3d 2x4's 1990s 1990's '80
Mr. mr. MR. no. no. 5 No. Mass. mass. fig. 3 fig. Inc., Co. e.g. i.e. etc. vs. Ph.D. a.m. J.R. B.
¢ £ € ¥ ½ ¼ ¾ © ® ™ ° ± × ÷ « » ¿ ¡ § ¶
日本語 русский ελληνικά été ÉTÉ ÜBER ñandú İ ß ﬁ
😀 smile a😀b ★ ☃ → ≤
a\tb a\u00a0b a\u3000b a\u200bb a\u00adb
gonna gotta wanna gimme lemme cannot Cannot GONNA 'tis 'twas more'n d'you y'all ol' o'er j'ai l'eau n'est
can't won't ain't shouldn't've they'll we're i'd DON'T don’t CAN’T
a_b a.b a,b a:b a;b a!b a?b a+b a=b a*b a@b a#b a$b a%b a^b a~b a|b a\\b a<b a>b
U.S.-based post-U.S. mid-'80s jack-o'-lantern one-way/two-way 3/4-inch 2-3/4
US$5 A$5 $5 5$ #5 5# 5% %5 5° 6'2" 6'
""".split("\n")


def captions(count, seed):
    """(candidate, references) with much in common, as captions have."""
    rng = random.Random(seed)
    sizes, colours = ["small", "large", "tiny", "huge"], ["red", "blue", "green", "yellow", "black"]
    things, places = ["dog", "boat", "kite", "train", "teapot", "girl's bike"], ["on a table", "near the sea", "in the old town", "under a bridge"]
    verbs = ["sits", "is standing", "can be seen", "isn't moving"]

    def sentence():
        words = [rng.choice(["A", "The", "One"]), rng.choice(sizes), rng.choice(colours), rng.choice(things), rng.choice(verbs), rng.choice(places)]
        if rng.random() < 0.3:
            words.insert(5, "quietly")
        if rng.random() < 0.2:
            words += ["beside a", rng.choice(colours), rng.choice(things)]
        return " ".join(words) + rng.choice(["", ".", " .", "!"])

    items = [(sentence(), [sentence() for _ in range(rng.randint(1, 6))]) for _ in range(count)]
    items += [("", ["A dog."]), ("...", ["A dog."]), ("A dog.", [""]), ("", [""]), ("dog", ["dog", "dog dog"]), ("the the the the the the", ["the cat", "the dog the"]),
              ("a board of 22 3/4 inch", ["a board of 22 3/4 inch", "22 3 boards"]), ("zebra", ["A dog.", "A cat."]), ("A red boat near the sea", ["A red boat near the sea"])]
    return items
