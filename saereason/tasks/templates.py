"""The stories behind the word problems: those that training may use, and three kinds that it never sees."""

from dataclasses import dataclass

LETTERS = "abcdef"


@dataclass(frozen=True)
class Template:
    """A story with slots (`name`, `other`, `things`, letters for numbers) and the working that answers it.

    Each entry of `working` is `left sign right`; a letter names a number of the story, a digit the result of an
    earlier step (from 1). Letters in `small` are factors from 2 to 9, the rest run from 2 to 99.
    """

    key: str
    story: str
    working: tuple[str, ...]
    small: str = ""

    @property
    def letters(self) -> str:
        return "".join(letter for letter in LETTERS if f"{{{letter}}}" in self.story)


TAUGHT = (
    Template("gain-lose", "{name} has {a} {things}. {other} gives {name} {b} more. Then {name} loses {c} of them. "
             "How many {things} does {name} have now?", ("a + b", "1 - c")),
    Template("lose-gain", "There were {a} {things} in a box. {name} took out {b} of them and later put in {c} others. "
             "How many {things} are in the box now?", ("a - b", "1 + c")),
    Template("gain-gain", "{name} collected {a} {things} on Monday, {b} on Tuesday and {c} on Wednesday. "
             "How many {things} did {name} collect altogether?", ("a + b", "1 + c")),
    Template("lose-lose", "{name} had {a} {things}. {name} gave {b} to {other} and sold {c}. "
             "How many {things} are left?", ("a - b", "1 - c")),
    Template("packs-plus", "{name} buys {a} packs with {b} {things} in each pack. {name} already had {c} {things}. "
             "How many {things} does {name} have in total?", ("a * b", "1 + c"), small="a"),
    Template("packs-minus", "A shop has {a} shelves with {b} {things} on each shelf. {c} of the {things} are sold. "
             "How many {things} does the shop still have?", ("a * b", "1 - c"), small="a"),
    Template("sum-times", "Every day {name} picks {a} {things} in the morning and {b} in the evening. "
             "How many {things} does {name} pick in {c} days?", ("a + b", "1 * c"), small="c"),
    Template("difference-times", "{name} had {a} {things} in each bag and took {b} out of every bag. There are {c} bags. "
             "How many {things} are in the bags now?", ("a - b", "1 * c"), small="c"),
    Template("more-than-total", "{name} has {a} {things}. {other} has {b} more than {name}. "
             "How many {things} do they have together?", ("a + b", "a + 1")),
    Template("fewer-than-total", "{name} has {a} {things}. {other} has {b} fewer than {name}. "
             "How many {things} do they have together?", ("a - b", "a + 1")),
    Template("times-total", "{name} found {a} {things}. {other} found {b} times as many. "
             "How many {things} did they find together?", ("a * b", "a + 1"), small="b"),
    Template("gain-lose-gain", "A library had {a} {things}. It bought {b} more, threw away {c} and was given {d}. "
             "How many {things} does the library have now?", ("a + b", "1 - c", "2 + d")),
    Template("lose-lose-gain", "{name} starts with {a} {things}, gives {b} to {other}, drops {c} and then buys {d}. "
             "How many {things} does {name} end up with?", ("a - b", "1 - c", "2 + d")),
    Template("gain-gain-lose", "On Friday {name} made {a} {things}, on Saturday {b} and on Sunday {c}. Later {d} of them broke. "
             "How many {things} remain?", ("a + b", "1 + c", "2 - d")),
    Template("packs-plus-minus", "{name} opens {a} boxes of {b} {things} each and finds {c} more under the table. "
             "Then {name} gives away {d}. How many {things} does {name} keep?", ("a * b", "1 + c", "2 - d"), small="a"),
    Template("packs-minus-plus", "A farmer fills {a} baskets with {b} {things} each. {c} of the {things} are bad and thrown out, "
             "and {d} new ones are added. How many {things} are there?", ("a * b", "1 - c", "2 + d"), small="a"),
    Template("two-packs", "{name} has {a} bags with {b} {things} each, and {other} has {c} bags with {d} {things} each. "
             "How many {things} do they have together?", ("a * b", "c * d", "1 + 2"), small="ac"),
    Template("lose-gain-gain", "{a} {things} lay on a table. {name} took {b}, {other} put down {c}, and {name} put down {d}. "
             "How many {things} lie on the table now?", ("a - b", "1 + c", "2 + d")),
    Template("dollars-spend", "{name} has {a} dollars, earns {b} dollars by washing cars and spends {c} dollars on a ticket. "
             "How many dollars does {name} have left?", ("a + b", "1 - c")),
    Template("birds", "{a} birds sat on a roof. {b} birds flew away, and after a while {c} birds came back. "
             "How many birds are on the roof now?", ("a - b", "1 + c")),
    Template("train", "A train leaves with {a} passengers. {b} passengers leave it at the first station and {c} at the second. "
             "How many passengers are still on the train?", ("a - b", "1 - c")),
    Template("wages", "{name} earns {b} dollars a day and works {a} days. {name} also gets {c} dollars as a present. "
             "How many dollars does {name} have in all?", ("a * b", "1 + c"), small="a"),
    Template("pages", "A book has {a} chapters with {b} pages each. {name} has already read {c} pages. "
             "How many pages are left to read?", ("a * b", "1 - c"), small="a"),
    Template("tickets", "{a} children and {b} adults go to a show. Each of them pays {c} dollars. "
             "How many dollars do they pay altogether?", ("a + b", "1 * c"), small="c"),
    Template("hall", "A hall holds {a} people. {b} people come in, then {c} more come in, and {d} people go home. "
             "How many people are in the hall now?", ("a + b", "1 + c", "2 - d")),
    Template("parking", "There are {a} cars in a garage. {b} cars drive in, {c} cars drive out and later {d} more drive out. "
             "How many cars are in the garage now?", ("a + b", "1 - c", "2 - d")),
    Template("herd", "A farm had {a} sheep. {b} sheep were sold, {c} sheep ran away and {d} sheep were stolen. "
             "How many sheep does the farm have now?", ("a - b", "1 - c", "2 - d")),
    Template("trees", "{name} grows {a} lines of {b} trees and plants {c} trees near the house. A storm takes {d} trees down. "
             "How many trees are still standing?", ("a * b", "1 + c", "2 - d"), small="a"),
    Template("weeks", "{name} reads {b} pages every week. After {a} weeks {name} skips {c} pages and then reads {d} more. "
             "What is the number of pages read, less those skipped?", ("a * b", "1 - c", "2 + d"), small="a"),
    Template("well", "A tank held {a} litres of water. {b} litres were used, {c} litres leaked out and {d} litres were poured in. "
             "How many litres are in the tank now?", ("a - b", "1 - c", "2 + d")),
    Template("eggs", "{name} has {a} hens, and each hen lays {b} eggs. {name} breaks {c} eggs. "
             "How many eggs are left?", ("a * b", "1 - c"), small="a"),
    Template("score", "In a game {name} scores {a} points, then {b} points, and loses {c} points for a mistake. "
             "How many points does {name} have now?", ("a + b", "1 - c")),
)  # fmt: skip

HELD_OUT = (
    Template("bus", "{a} people are on a bus. At the first stop {b} people get on, and at the second stop {c} people get off. "
             "How many people are on the bus now?", ("a + b", "1 - c")),
    Template("savings", "{name} saves {b} dollars a week for {a} weeks and spends {c} dollars of that on a gift. "
             "How many dollars does {name} have left?", ("a * b", "1 - c"), small="a"),
    Template("pond", "A pond had {a} fish. {b} fish were caught, {c} fish swam away and {d} young fish were added. "
             "How many fish are in the pond now?", ("a - b", "1 - c", "2 + d")),
    Template("garden", "{name} plants {a} rows of {b} flowers and then {c} flowers by the fence. In winter {d} flowers die. "
             "How many flowers are left?", ("a * b", "1 + c", "2 - d"), small="a"),
)  # fmt: skip
"""Four templates that no training ever sees."""

LONGER = (
    Template("bus-line", "A bus leaves with {a} people. At the next stops {b} people get on, {c} get off, {d} get on and {e} get "
             "off. How many people are on the bus now?", ("a + b", "1 - c", "2 + d", "3 - e")),
    Template("warehouse", "A warehouse holds {a} boxes. On Monday {b} boxes leave, on Tuesday {c} arrive, on Wednesday {d} leave "
             "and on Thursday {e} arrive. How many boxes are there now?", ("a - b", "1 + c", "2 - d", "3 + e")),
    Template("baker", "{name} bakes {a} trays with {b} rolls each, sells {c} rolls, bakes {d} more and gives {e} to {other}. "
             "How many rolls does {name} have left?", ("a * b", "1 - c", "2 + d", "3 - e"), small="a"),
    Template("purse", "{name} has {a} dollars, earns {b}, spends {c}, earns {d}, spends {e} and finds {f}. "
             "How many dollars does {name} have now?", ("a + b", "1 - c", "2 + d", "3 - e", "4 + f")),
    Template("reading", "A book club owns {a} books. It buys {b}, lends {c}, gets {d} back, loses {e} and is given {f}. "
             "How many books does it have now?", ("a + b", "1 - c", "2 + d", "3 - e", "4 + f")),
    Template("orchard", "{name} picks {a} baskets of {b} pears, eats {c}, picks {d} more, gives {e} away and buys {f}. "
             "How many pears does {name} have now?", ("a * b", "1 - c", "2 + d", "3 - e", "4 + f"), small="a"),
)  # fmt: skip
"""Chains of four and five steps, where taught ones have two and three."""

OTHER_OPERATIONS = (
    Template("share-more", "{name} shares {a} {things} equally among {b} friends, and {other} gives each friend {c} more. "
             "How many {things} does each friend have?", ("a / b", "1 + c"), small="b"),
    Template("share-fewer", "{a} {things} are packed into {b} boxes, as many in each, and then {c} are taken out of every box. "
             "How many {things} are in each box?", ("a / b", "1 - c"), small="b"),
    Template("gain-share", "{name} has {a} {things} and finds {b} more. They are put into {c} equal piles. "
             "How many {things} are in each pile?", ("a + b", "1 / c"), small="c"),
    Template("lose-share", "{name} has {a} {things}, loses {b} and shares the rest equally among {c} children. "
             "How many {things} does each child get?", ("a - b", "1 / c"), small="c"),
    Template("share-times", "{a} {things} are spread evenly over {b} tables. How many {things} are on {c} of the tables?",
             ("a / b", "1 * c"), small="bc"),
    Template("packs-share", "{name} buys {a} packs of {b} {things} and hands them out equally to {c} people. "
             "How many {things} does each of them get?", ("a * b", "1 / c"), small="ac"),
)  # fmt: skip
"""Problems with a division, which no taught one has; all of them come out even."""
