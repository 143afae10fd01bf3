"""Questions whose salient words were marked by hand."""

from __future__ import annotations

from duet_vlm.stage2.words import salient_spans

# Typical questions in the manner of GQA, VQAv2, TextVQA and POPE. Annotated by hand, a star after each salient word:
# question words, and the nouns, proper nouns, pronouns, verbs, adjectives and adverbs that are no stop words (which are
# closed classes, auxiliary and light verbs, numerals, place nouns of compound prepositions, words of degree).
QUESTIONS = """
What* color* is the car* parked* next to the fire* hydrant*?
Is there a dog* in the image*?
How* many people* are wearing* hats*?
What* is the man* on the left* holding*?
Which* side of the photo* is the lamp* on?
What's* the name of the restaurant*?
Who* is riding* the brown* horse*?
Where* is the cat* sitting*?
Does the sign* say stop* or yield*?
Is the girl* to the right* of the fence* smiling*?
What* time* does the clock* show?
What* brand* is the laptop* on the desk*?
Are there more apples* than oranges*?
Why* is the boy* holding* an umbrella*?
What* number* is written* on the jersey*?
Is this a sunny* day*?
What* kind* of animal* is drinking* water*?
How* old* does the woman* look*?
Whose* bag* is under the wooden* bench*?
What* does the license* plate* read*?
Is the traffic* light* green* or red*?
Can you see any birds* flying* above the lake*?
What* material* is the round* table* made of?
Do you see both spoons* and forks*?
What* is the tallest* building* called*?
Is it raining*?
What* shape* is the small* blue* object* in the background*?
Are the curtains* open* or closed*?
What* sport* are they playing*?
How* far* is the truck* from the stop* sign*?
Is the vase* in front of the window*?
What* is the last word* on the poster*?
Which* fruit* is larger*, the banana* or the pear*?
Are all of the chairs* the same color*?
What* country's* flag* is hanging* on the wall*?
Isn't the bus* moving*?
Who* wrote* this book*?
Is there a phone* number* on the ad*?
What* room* is this?
On which* hand* is the lady* wearing* the ring*?
Is the plate* to the left* or to the right* of the glass*?
How* much does the sandwich* cost*?
What* are the two children* looking* at?
When* was this picture* taken*?
What* is in the black-and-white* photograph*?
Is the man* with the beard* taller* than the woman*?
Please describe* the scene* briefly*.
Answer* the question* using a single* word* or phrase*.
What* does the yellow* t-shirt* say?
Is there anything unusual* about this picture*?
Does this person* work* at Google*?
What* letter* comes* after B* on the keyboard*?
""".strip().splitlines()


def chosen(text: str, language: str = "en") -> list[str]:
    return [text[start:end] for start, end in salient_spans(text, language)]


class Text(str):
    """A text that tells when it is gone."""
