package edgeopt.core

/**
 * A class for each place: the largest of the file's logits, (1, classes, height, width), or the classes that it gives
 * itself, (1, height, width). What shows the ground around the image is not drawn.
 */
class MaskAnswering(private val card: Card) : Answering {
    private val shape = card.outputs[0].shape.drop(1).map { it ?: throw CardException("the card: a side of the masks is open") }
    private val ignored = (card.decision["ignored"] as? Double)?.toInt() ?: 255

    override fun answer(outputs: List<FloatArray>, geometry: Geometry): Answer {
        val (height, width) = shape.takeLast(2)
        val classes = if (shape.size == 3) largest(outputs[0], shape[0]) else IntArray(outputs[0].size) { outputs[0][it].toInt() }
        val shares = shares(classes)
        val texts = shares.map { (label, share) -> Entry(label, "${card.classes[label]} ${Math.rint(100 * share).toInt()} %") }
        val told = texts.take(4).joinToString { it.text }.ifEmpty { "nothing judged" }
        val (across, down) = geometry.network.width.toDouble() / width to geometry.network.height.toDouble() / height
        val shown = IntArray(classes.size) {
            val isInside = geometry.shows((it % width + 0.5) * across, (it / width + 0.5) * down)
            if (isInside && classes[it] != ignored) classes[it] else -1
        }
        return Answer(listOf(told), mask = PlacedMask(height, width, shown), legend = texts.filter { it.label > 0 })
    }

    private fun largest(logits: FloatArray, count: Int): IntArray {
        val places = logits.size / count
        return IntArray(places) { place ->
            var best = 0
            for (label in 1 until count) if (logits[label * places + place] > logits[best * places + place]) best = label
            best
        }
    }

    /** The classes of a mask with their shares of the judged places, the largest first. */
    private fun shares(classes: IntArray): List<Pair<Int, Double>> {
        val counts = IntArray(card.classes.size)
        for (label in classes) if (label != ignored) counts[label]++
        val judged = counts.sum().toDouble()
        return counts.indices.filter { counts[it] > 0 }.sortedByDescending { counts[it] }.map { it to counts[it] / judged }
    }
}
