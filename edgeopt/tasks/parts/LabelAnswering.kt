package edgeopt.core

import kotlin.math.exp
import kotlin.math.ln

/** Any number of labels: the sigmoid of each logit, and those that reach their threshold in the card are told. */
class LabelAnswering(private val card: Card) : Answering {
    private val least = DoubleArray(card.classes.size) { place ->
        val threshold = (card.decision["thresholds"] as? List<*>)?.get(place) ?: card.decision["threshold"]
        val share = threshold as? Double ?: throw CardException("the card: decision has no threshold for ${card.classes[place]}")
        ln(share / (1 - share))
    }

    override fun answer(outputs: List<FloatArray>, geometry: Geometry): Answer {
        val logits = outputs[0]
        val told = logits.indices.filter { logits[it] >= least[it] }
        val guesses = told.map { Guess(card.classes[it], 1 / (1 + exp(-logits[it].toDouble()))) }.sortedByDescending { it.share }
        return Answer(guesses.map { "%3.0f %%  %s".format(100 * it.share, it.label) }.ifEmpty { listOf("no label") }, guesses)
    }
}
