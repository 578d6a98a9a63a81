package edgeopt.core

/** Boxes: what `BoxDecoder` makes of raw heads, or reads where the file ends at boxes, from the score on from which the card says that boxes are shown. */
class BoxAnswering(private val card: Card) : Answering {
    private val decoder = BoxDecoder(card.decision["decoding"] as? Map<*, *> ?: throw CardException("the card: decision has no decoding"))
    private val leastScore = BoxDecoder.number(card.decision, "shown_score").toFloat()

    override fun answer(outputs: List<FloatArray>, geometry: Geometry): Answer {
        val boxes = found(outputs).map { geometry.placed(floatArrayOf(it.x1, it.y1, it.x2, it.y2), it.label, text(it)) }
        val counts = boxes.groupingBy { it.label }.eachCount()
        val told = counts.entries.joinToString { (label, count) -> "$count ${card.classes[label]}" }
        return Answer(listOf(told.ifEmpty { "nothing" }), boxes = boxes)
    }

    /** The boxes that are shown, the best first, in px of the file's input. */
    fun found(outputs: List<FloatArray>): List<DetectedBox> =
        decoder.found(outputs).filter { it.score >= leastScore }

    private fun text(box: DetectedBox) = "${card.classes[box.label]} ${Math.rint(100.0 * box.score).toInt()} %"
}
