package edgeopt.core

/** The angle of the direction that the file gives for twice of it: x and y. */
class AngleAnswering(private val card: Card) : Answering {
    override fun answer(outputs: List<FloatArray>, geometry: Geometry): Answer {
        val direction = outputs[0]
        if (direction.size != 2) throw CardException("the card: ${card.outputs[0].name} is no direction")
        val degrees = (Math.toDegrees(Math.atan2(direction[1].toDouble(), direction[0].toDouble())) / 2).mod(180.0)
        return Answer(lines = listOf("${Math.rint(degrees).toInt()}°"))
    }
}
