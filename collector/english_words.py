"""Which names are English words too. One of them in an answer could be the word as well as the surrogate, so that it
could not be turned back; Faker's own word list holds the most frequent words, and here are those that it lacks.
"""

from faker.providers.lorem.en_US import Provider

_MORE = """
january february march april may june july august september october november december
monday tuesday wednesday thursday friday saturday sunday spring summer autumn fall winter

alexa alexandria amber angel antonio archer armstrong art austin bailey baker baldwin ball ballard banks barber barnes
barr barton bates beck bell berry bill billy bird bishop black blair blanchard bolton bond bonnie booker booth bowen
bowers bradford branch brandy brewer bridges brock brook brooke brooks brown browning buck bud burns burton bush
butler byrd cain cannon carol carpenter carson carter case cash castle chad chambers chance chandler chapman charity
charlotte chase chelsea cheyenne christian church clark clay clayton cliff cline coffey cole collier colon combs
conner conway cook cooley cooper corona cotton cox craft craig crane crawford cross cruz crystal curry daisy dale
dallas dawn day dean decker derby destiny dexter diamond dick dickens dickerson diego dixon dolly downs drake drew
dudley duke duncan durham dyer eagle earl early ebony english eve faith farmer field fields finch fischer fisher flint
florence flores flower flowers flynn foley ford forest foster fountain fowler fox francis francisco franco frank
franklin freeman french frost fuller gale gamble garland garner gates gay gene genesis george georgia gibson gilbert
giles gill ginger glass glen glenn glover gold golden good gordon gore gould grace graham grant graves gray green
greene griffin grimes gross guy hale hall hamilton hammond hampton hancock hand harding hardy harmony harper harry
hart harvey haven hawk hawkins hazel head heath heather henry herring hill hilton hobbs hodge holden holder holland
hollis holly holt hood hooper hoover hope hopkins horn horton house houston hubbard hudson huff hull hunt hunter hurst
ingram ireland iris israel ivory ivy jack jackson jade jasmine jay jazz jean jenny jerry jersey jesus jewel jimmy joe
john jordan jose joy juan judge julia julian justice kane karen kelvin kemp kent kerry key kidd kim king kit klein
knight knox lake lam lamb lambert lance lane lang lara laurel law lawson leach lee leon lily lin lincoln little
livingston lock logan london long lorraine love lowe lucky lynch lyons mack madison malone mandy mango mann manning
mario mark marks marlin marsh marshall martin mason massey max maxwell mayo mays meadow meadows melody mercado
mercedes mercy merit mike miles mill miller mills mina mindy miranda misty monroe moody moon mooney moore mora morgan
morris morrow morse moss mullen murphy nancy nash nelson newman newton nick noble noel norm norman north norton nova
olive oliver opal orr otter pace page paige palmer pansy paris park parker parks parsons pat patience patrick patsy
paul payne peace pearl peck peggy pena penny pepper perry petty pierce pike piper pitts plant pollard pollock ponce
pond poole pope poppy porter potter potts powers pratt precious preston price prince proctor pugh queen quinn ralph
randy ray reed reese reeves rex rhodes rice rich richmond riley rios ritter river rivers roach rob robin rocha rock
rocky roger roman rosario rose ross roth rowe roy ruby rush russell rusty ruth sage salinas sandy santiago santos
savage savannah sawyer scott sears self sellers shaffer shannon sharp shaw shelby sheldon shell shelly shelton
shepherd sheppard sherman sherry shields short sierra simon sims singer singleton skinner skip skye sloan small smith
snow sommer south spark sparks spears spence spencer stacy stanley star stark steele stein stella sterling stevens
stone storm stout strickland strong stuart sue summers sunny sutton swan swift sydney tanner tate taylor terry thomas
thorn thornton tiffany tim todd tony torres townsend trace tracy travis trinity troy tucker turner tyler underwood
valentine vance vega vernon victor victoria viola violet virginia vision wade wagner walker wall wallace waller walls
walter walters walton ward ware warner warren washington waters watson watts wayne weaver webb weber webster weeks
wells wendy west wheat wheeler white whitehead whitney wilder wiley will willow wills winter winters wise wolf wolfe
wood woods woodward worth wright yates york young zimmerman
"""
_WORDS = frozenset(word.casefold() for word in Provider.word_list) | frozenset(_MORE.split())


def has_a_word(name: str) -> bool:
    """Whether a word of the name is an English one as well."""
    return any(word in _WORDS for word in name.casefold().split())
