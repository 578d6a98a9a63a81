package edgeopt.core

import kotlin.math.exp

/** One of the classes: the softmax of logits, which are first divided by the temperature of the card where it has one. */
class ClassAnswering(private val card: Card) : Answering {
    private val temperature = (card.decision["temperature"] as? Double)?.toFloat() ?: 1f

    override fun answer(outputs: List<FloatArray>, geometry: Geometry): Answer {
        val guesses = guesses(outputs[0])
        return Answer(guesses.map { "%3.0f %%  %s".format(100 * it.share, it.label) }, guesses)
    }

    /** The likeliest classes, the likeliest first; of equals, the first. */
    private fun guesses(logits: FloatArray, count: Int = 5): List<Guess> {
        val shares = softmax(logits)
        val order = shares.indices.sortedByDescending { shares[it] }
        return order.take(count).map { Guess(card.classes[it], shares[it]) }
    }

    private fun softmax(logits: FloatArray): DoubleArray {
        val cooled = FloatArray(logits.size) { logits[it] / temperature }
        val largest = cooled.max().toDouble()
        val powers = DoubleArray(cooled.size) { exp(cooled[it] - largest) }
        val sum = powers.sum()
        return DoubleArray(powers.size) { powers[it] / sum }
    }
}
