"""Word lists of the built-in rule for salient words (docs/method.md, 2.1; see `duet_vlm.stage2.words`).

A stop word is a word of a closed class: articles, pronouns, prepositions, conjunctions, particles, auxiliary and
light verbs, numerals, interjections, the vague adverbs and adjectives of degree, order and amount, and the place nouns
of compound prepositions ("in front of", "on top of"). Lower case, NFC.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """Closed-class words of one language, lower case.

    question_words: salient wherever they stand, also where they introduce a relative clause.
    stop_words: never salient. Written with a straight apostrophe where one belongs to the word ("don't").
    clitics: what is no word of its own beside an apostrophe: the "s" of "what's", the "l" of "l'image".
    """

    question_words: frozenset[str]
    stop_words: frozenset[str]
    clitics: frozenset[str]


def _language(question_words: str, stop_words: str, clitics: str = "") -> Language:
    return Language(frozenset(question_words.split()), frozenset(stop_words.split()), frozenset(clitics.split()))


LANGUAGES: dict[str, Language] = {
    "en": _language(
        "who what where when why how which whom whose",
        # articles, determiners, pronouns
        "a an the this that these those i me my mine myself we us our ours ourselves you your yours yourself "
        "yourselves he him his himself she her hers herself it its itself they them their theirs themselves one ones "
        "someone somebody something anyone anybody anything everyone everybody everything noone nobody nothing none "
        "some any each every either neither both all another other others such same own many much more most few fewer "
        "less least several enough various whatever whichever whoever whomever wherever whenever however "
        # prepositions, also those made of a place noun
        "about above across after against along alongside amid among amongst around as at before behind below beneath "
        "beside besides between beyond by despite down during except for from in inside into like near of off on onto "
        "opposite out outside over past per regarding since through throughout till to toward towards under "
        "underneath until up upon via with within without versus front back top bottom side amount "
        # conjunctions, particles, adverbs of degree, time and order
        "and or but nor so yet if then else than because although though while whereas whether unless once not no yes "
        "n't too very quite rather almost just only even also again already still ever never always often sometimes "
        "perhaps maybe really there here now thus hence therefore well indeed otherwise together apart away elsewhere "
        "somewhere anywhere everywhere nowhere somehow anyhow first last next former latter further hereby mostly "
        "nevertheless meanwhile "
        # interjections
        "please pls plz ok okay hi hey hello thanks thx oh wow hmm um umm uh yeah yep nope nah lol "
        # auxiliary and light verbs
        "be am is are was were been being do does did doing done have has had having can could will would shall "
        "should may might must ought let get give go keep make made put say see seem seems seemed show take call name "
        "become becomes became becoming used using cannot cant wont dont doesnt didnt isnt arent wasnt werent hasnt "
        "havent hadnt couldnt wouldnt shouldnt don't doesn't didn't isn't aren't wasn't weren't hasn't haven't hadn't "
        "can't couldn't won't wouldn't shan't shouldn't mustn't needn't mightn't ain't let's "
        # amounts and numerals: no class of the salient ones
        "full empty part whole zero two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred "
        "thousand million",
        "s t d m re ve ll em",
    ),
    "de": _language(
        "wer wen wem wessen was wo wohin woher wann warum wieso weshalb wie wieviel wieviele welch welche welcher "
        "welches welchen welchem womit wofür woran worauf woraus worin wovon wozu wodurch wobei",
        "der die das den dem des ein eine einen einem einer eines kein keine keinen keinem keiner keines dies diese "
        "dieser dieses diesen diesem jene jener jenes jenen jenem jede jeder jedes jeden jedem alle allem allen aller "
        "alles beide beiden beider einige einigen einiger etwas nichts niemand jemand man manche mancher manches "
        "mehrere viel viele vielen vieler wenig wenige weniger mehr meist meiste meisten solche solcher solches "
        "andere anderen anderer anderes anderem selbst selber eigene eigenen gleiche gleichen derselbe dieselbe "
        "dasselbe ich mich mir mein meine meinen meinem meiner du dich dir dein deine deinen deinem deiner er ihn ihm "
        "sein seine seinen seinem seiner seines sie ihr ihre ihren ihrem ihrer ihres es sich wir uns unser unsere "
        "unseren unserem unserer euch euer eure an am auf aus bei beim bis durch entlang für gegen gegenüber hinter "
        "hinterm im in ins innerhalb außerhalb mit nach neben oben ober oberhalb ohne seit statt trotz über um unter "
        "unten unterhalb unterm von vom vor vorm vorne hinten während wegen zu zum zur zwischen und oder aber denn "
        "sondern doch jedoch wenn als ob dass weil da damit obwohl sowie sowohl auch nur noch schon sehr so ganz etwa "
        "gar fast immer nie niemals oft manchmal hier dort dann nun jetzt wieder nicht nein ja bitte danke hallo also "
        "dabei dafür dagegen daher daran darauf daraus darin darüber darunter davon davor dazu dahinter daneben drin "
        "drauf bin bist ist sind seid war waren wart warst gewesen sei wäre wären habe hast hat haben habt hatte "
        "hatten gehabt werde wirst wird werden werdet wurde wurden worden geworden würde würden kann kannst können "
        "könnt konnte konnten könnte könnten muss musst müssen müsst musste mussten soll sollst sollen sollt sollte "
        "sollten will willst wollen wollt wollte wollten darf darfst dürfen dürft durfte mag mögen möchte lassen "
        "lässt macht machen gemacht tun tut gibt geben gib geht gehen null eins zwei drei vier fünf sechs sieben acht "
        "neun zehn elf zwölf zwanzig dreißig hundert tausend erste ersten erster erstes letzte letzten letzter "
        "letztes nächste nächsten",
        "s n m",
    ),
    "fr": _language(
        "qui que quoi où quand pourquoi comment combien quel quelle quels quelles lequel laquelle lesquels lesquelles",
        "le la les un une des du de au aux ce cet cette ces cela ça ceci celui celle ceux celles mon ma mes ton ta "
        "tes son sa ses notre nos votre vos leur leurs je me moi tu te toi il elle on se soi nous vous ils elles eux "
        "lui en y ne pas plus moins rien aucun aucune chaque chacun chacune tout toute tous toutes "
        "quelque quelques plusieurs certain certaine certains certaines autre autres même mêmes tel telle tels telles "
        "dont beaucoup peu trop assez très si aussi ainsi encore déjà toujours jamais souvent parfois à après avant "
        "avec chez contre dans depuis derrière dès devant durant entre envers hors jusque malgré par parmi pendant "
        "pour près sans sauf selon sous sur vers dessus dessous dedans dehors autour côté face lieu milieu haut bas "
        "et ou mais donc or ni car parce puisque lorsque quoique comme alors puis ensuite ici là voici voilà oui non "
        "merci bonjour svp être suis es est sommes êtes sont étais était étions étiez étaient été étant sera seront "
        "serait seraient soit soient fut avoir ai as a avons avez ont avais avait avions aviez avaient eu ayant aura "
        "auront aurait auraient ait aient faire fait fais font faites faisait aller va vais vas vont peut peux "
        "peuvent pouvez pouvons pourrait doit dois doivent devez veut veux veulent voulez faut zéro deux trois quatre "
        "cinq six sept huit neuf dix onze douze vingt trente cent mille premier première dernier dernière",
        "l d j m t s c n qu jusqu lorsqu puisqu quoiqu",
    ),
    "es": _language(
        "qué quién quiénes cuál cuáles dónde adónde cuándo cómo cuánto cuánta cuántos cuántas",
        "el la los las lo un una unos unas al del este esta esto estos estas ese esa eso esos esas aquel aquella "
        "aquello aquellos aquellas mi mis tu tus su sus nuestro nuestra nuestros nuestras vuestro vuestra mío mía "
        "tuyo tuya suyo suya yo me mí tú te ti él ella ello se sí nosotros nos vosotros os ellos ellas le les usted "
        "ustedes algo alguien algún alguno alguna algunos algunas nada nadie ningún ninguno ninguna cada todo toda "
        "todos todas otro otra otros otras mismo misma mismos mismas tal tales varios varias mucho mucha muchos "
        "muchas poco poca pocos pocas más menos muy tan tanto tanta tantos tantas bastante demasiado ambos ambas "
        "cualquier cualquiera quien quienes cual cuales cuyo cuya a ante bajo con contra de desde durante en entre "
        "hacia hasta mediante para por según sin sobre tras alrededor cerca lejos dentro fuera delante detrás encima "
        "debajo arriba abajo junto lado frente y e o u pero sino ni que porque pues si como cuando donde aunque "
        "mientras también tampoco no ya aún todavía siempre nunca jamás solo sólo así entonces luego aquí ahí allí "
        "allá ahora quizás gracias hola favor ser soy eres es somos sois son era eras éramos eran fue fueron sido "
        "siendo será serán sería sea sean estar estoy estás está estamos están estaba estaban estado esté estén haber "
        "he has ha hemos han había habían habido hay haya hubo tener tengo tiene tienes tienen tenía hacer hace hacen "
        "haciendo hecho ir va van voy puede puedes pueden puedo podría debe deben quiere cero uno dos tres cuatro "
        "cinco seis siete ocho nueve diez once doce veinte treinta cien mil primer primero primera último última",
    ),
    "it": _language(
        "chi che cosa dove quando perché come quanto quanta quanti quante quale quali qual",
        "il lo la i gli le un uno una del dello della dei degli delle al allo alla ai agli alle dal dallo dalla dai "
        "dagli dalle nel nello nella nei negli nelle sul sullo sulla sui sugli sulle col coi questo questa questi "
        "queste quello quella quelli quelle quel quei quegli ciò mio mia miei mie tuo tua tuoi tue suo sua suoi sue "
        "nostro nostra nostri nostre vostro vostra loro io me mi tu te ti lui lei esso essa egli ella si sé noi ci "
        "voi vi essi esse ne qualcosa qualcuno qualche alcuno alcuna alcuni alcune niente nulla nessuno nessuna ogni "
        "ognuno ciascuno tutto tutta tutti tutte altro altra altri altre stesso stessa stessi stesse tale tali vari "
        "varie molto molta molti molte poco poca pochi poche più meno troppo tanto tanta tanti tante abbastanza "
        "entrambi entrambe cui di a da in con su per tra fra contro dentro fuori dietro davanti sopra sotto vicino "
        "accanto attorno intorno presso verso senza durante oltre lungo secondo fronte lato e ed o od ma però né se "
        "anche pure oppure quindi dunque mentre poiché siccome benché allora poi così non no sì già ancora sempre mai "
        "spesso solo soltanto qui qua lì là ora adesso forse grazie ciao prego favore essere sono sei è siamo siete "
        "era erano eri fu furono stato stata stati state sarà saranno sarebbe sia siano essendo avere ho hai ha "
        "abbiamo avete hanno aveva avevano avuto abbia fare fa fai fanno facendo fatto stare sto stai sta stanno "
        "stava andare va vanno può puoi possono posso potrebbe deve devono vuole c'è zero due tre quattro cinque "
        "sette otto nove dieci undici dodici venti trenta cento mille primo prima ultimo ultima",
        "l un d c v m t s n all dall dell nell sull quell quest bell sant dov com cos quant anch",
    ),
    "pt": _language(
        "que quê quem qual quais onde aonde quando como porquê quanto quanta quantos quantas",
        "o a os as um uma uns umas ao à aos às do da dos das no na nos nas num numa nuns numas pelo pela pelos pelas "
        "dum duma este esta isto estes estas esse essa isso esses essas aquele aquela aquilo aqueles aquelas neste "
        "nesta nesse nessa naquele naquela deste desta desse dessa daquele daquela nisto nisso disto disso meu minha "
        "meus minhas teu tua teus tuas seu sua seus suas nosso nossa nossos nossas vosso vossa eu me mim tu te ti "
        "você vocês ele ela se si nós vós vos eles elas lhe lhes dele dela deles delas nele nela algo alguém algum "
        "alguma alguns algumas nada ninguém nenhum nenhuma cada todo toda todos todas tudo outro outra outros outras "
        "mesmo mesma mesmos mesmas tal tais vários várias muito muita muitos muitas pouco pouca poucos poucas mais "
        "menos tão tanto tanta tantos tantas bastante demais ambos ambas qualquer quaisquer cujo cuja ante após até "
        "com contra de desde durante em entre para pra perante por sem sob sobre trás dentro fora perto longe frente "
        "lado cima baixo atrás embaixo acima abaixo junto e ou mas porém nem porque pois embora enquanto também não "
        "sim já ainda sempre nunca jamais só apenas assim então depois aqui aí ali lá agora talvez obrigado obrigada "
        "olá favor ser sou és é somos são era eras éramos eram foi foram sido sendo será serão seria seja sejam estar "
        "estou estás está estamos estão estava estavam estado esteja ter tenho tem tens temos têm tinha tinham tido "
        "haver há havia houve fazer faz fazem fazendo feito ir vai vão vou pode podem podes posso poderia deve devem "
        "quer zero dois duas três quatro cinco seis sete oito nove dez onze doze vinte trinta cem mil primeiro "
        "primeira último última",
        "d n",
    ),
    "nl": _language(
        "wie wat waar wanneer waarom hoe hoeveel welk welke wiens waarmee waarvan waaraan waarop waarin waarheen "
        "waarvoor waardoor",
        "de het een deze dit die dat der des den geen elk elke ieder iedere iedereen iemand niemand iets niets alle "
        "alles allemaal beide ander andere anderen zelfde dezelfde hetzelfde zulke sommige enkele enige veel vele "
        "meer meest meeste weinig minder minst verschillende genoeg ik me mij mijn jij je jou jouw u uw hij hem zijn "
        "zij ze haar wij we ons onze jullie hun hen zich zichzelf zelf men elkaar er aan achter af beneden bij binnen "
        "boven buiten door in langs met na naar naast om onder op over per sinds te tegen tegenover tijdens tot "
        "tussen uit van vanaf vanuit via volgens voor voorbij zonder rond rondom kant en of maar want dus noch als "
        "dan toen terwijl omdat doordat hoewel tenzij zodat indien ook nog al alleen pas niet nee ja wel toch zo zeer "
        "erg heel bijna steeds altijd nooit vaak soms hier daar nu weer misschien alsjeblieft alstublieft dank hallo "
        "daarvan daarop daarin daarmee erop erin ervan ermee ben bent is waren was geweest wees heb hebt heeft hebben "
        "had hadden gehad word wordt worden werd werden geworden kan kun kunt kunnen kon konden zal zult zullen zou "
        "zouden moet moeten moest mag mogen mocht wil wilt willen wilde doe doet doen deed gedaan maakt maken gemaakt "
        "laat laten ga gaat gaan geef geeft nul één twee drie vier vijf zes zeven acht negen tien elf twaalf twintig "
        "dertig honderd duizend eerste laatste volgende",
        "s t n m k z",
    ),
}
