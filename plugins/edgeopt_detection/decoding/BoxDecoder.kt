package edgeopt.core

/** A box of the answer, in px of the file's input. */
class DetectedBox(val x1: Float, val y1: Float, val x2: Float, val y2: Float, val label: Int, val score: Float)

/**
 * From the raw heads of a file to boxes: what `reference.py` beside it does, to the last bit.
 *
 * `decoding` is that of a card, as `Json.parse` reads it. All arithmetic is in the order of the reference, and the exponential is its own:
 * a device's may differ in the last bit.
 */
class BoxDecoder(decoding: Map<*, *>) {
    private class Level(val rows: Int, val columns: Int, val origin: DoubleArray, val step: DoubleArray, val boxes: List<DoubleArray>) {
        val anchors get() = rows * columns * boxes.size
    }

    private class Candidate(val box: FloatArray, val label: Int, val score: Float)

    private val height = number(decoding, "height")
    private val width = number(decoding, "width")
    private val classes = number(decoding, "classes").toInt()
    private val kind = decoding["scores"] as String
    private val background = (decoding["background"] as Double?)?.toInt() ?: -1
    private val isOffsets = decoding["boxes"] == "offsets"
    private val weights = numbers(decoding["weights"])
    private val scaleLimit = (decoding["scale_limit"] as Double?) ?: 0.0
    private val scoreThreshold = number(decoding, "score_threshold")
    private val iouThreshold = number(decoding, "iou_threshold")
    private val isPerClass: Boolean
    private val candidates: Int
    private val most = number(decoding, "most").toInt()
    private val columns = classes + (if (background < 0) 0 else 1)
    private val levels: List<Level>
    private val anchors: DoubleArray

    /** Anchors of all levels: each has `columns` logits, four numbers of a box and, where it is used, one of centerness. */
    val anchorCount: Int

    init {
        val asked = decoding["candidates"] as Map<*, *>
        isPerClass = asked["per"] == "class"
        candidates = number(asked, "most").toInt()
        levels = (decoding["levels"] as List<*>).map {
            val level = it as Map<*, *>
            val boxes = (level["boxes"] as List<*>).map(::numbers)
            Level(number(level, "rows").toInt(), number(level, "columns").toInt(), numbers(level["origin"]), numbers(level["step"]), boxes)
        }
        anchorCount = levels.sumOf { it.anchors }
        anchors = DoubleArray(anchorCount * 4)
        var to = 0
        for (level in levels) for (row in 0 until level.rows) for (column in 0 until level.columns) {
            val y = level.origin[0] + row * level.step[0]
            val x = level.origin[1] + column * level.step[1]
            for (box in level.boxes) for (place in 0..3) anchors[to++] = (if (place % 2 == 0) x else y) + box[place]
        }
    }

    /** The boxes of one image, the best first, of what a file gives: its raw heads, or boxes where it ends at these. */
    fun found(outputs: List<FloatArray>): List<DetectedBox> =
        if (outputs.size == 4) read(outputs[0], outputs[1], outputs[2], outputs[3][0]) else decode(outputs[0], outputs[1], outputs.getOrNull(2))

    /** The boxes of a file that ends at them: `boxes` are y1, x1, y2, x2 in shares of the input's height and width. */
    private fun read(boxes: FloatArray, labels: FloatArray, scores: FloatArray, count: Float): List<DetectedBox> {
        val read = ArrayList<DetectedBox>()
        for (row in 0 until minOf(count.toInt(), scores.size)) {
            val sides = FloatArray(4) {
                val limit = if (it % 2 == 0) height else width
                (minOf(maxOf(boxes[row * 4 + it].toDouble() * limit, 0.0), limit) + 0.0).toFloat()
            }
            val isKnown = labels[row] >= 0 && labels[row] < classes && !scores[row].isNaN() && sides.none { it.isNaN() }
            if (isKnown) read.add(DetectedBox(sides[1], sides[0], sides[3], sides[2], labels[row].toInt(), scores[row]))
        }
        return read
    }

    /** The boxes of one image, the best first; `centerness` is null where it is not used. */
    fun decode(logits: FloatArray, boxes: FloatArray, centerness: FloatArray?): List<DetectedBox> {
        val scores = scores(logits, centerness)
        val corners = arrayOfNulls<FloatArray>(anchorCount)
        val known = BooleanArray(anchorCount)
        fun box(anchor: Int): FloatArray? {
            if (!known[anchor]) corners[anchor] = box(boxes, anchor)
            known[anchor] = true
            return corners[anchor]
        }
        val found = ArrayList<Candidate>()
        fun add(first: Int, last: Int, labels: IntRange) {
            val part = ArrayList<Candidate>()
            for (anchor in first until last) for (label in labels) {
                val score = scores[anchor * classes + label]
                if (score > scoreThreshold) box(anchor)?.let { part.add(Candidate(it, label, score)) }
            }
            found.addAll(part.sortedByDescending { it.score }.take(candidates))
        }
        if (isPerClass) {
            for (label in 0 until classes) add(0, anchorCount, label..label)
        } else {
            var first = 0
            for (level in levels) {
                add(first, first + level.anchors, 0 until classes)
                first += level.anchors
            }
        }
        return withoutOverlaps(found.sortedByDescending { it.score })
    }

    private fun scores(logits: FloatArray, centerness: FloatArray?): FloatArray {
        val scores = FloatArray(anchorCount * classes)
        val powers = DoubleArray(columns)
        for (anchor in 0 until anchorCount) {
            val from = anchor * columns
            var to = anchor * classes
            if (kind == "softmax") {
                var largest = Double.NEGATIVE_INFINITY
                for (column in 0 until columns) largest = maxOf(largest, logits[from + column].toDouble())
                var total = 0.0
                for (column in 0 until columns) {
                    powers[column] = exponential(logits[from + column] - largest)
                    total += powers[column]
                }
                for (column in 0 until columns) if (column != background) scores[to++] = (powers[column] / total).toFloat()
                continue
            }
            val centre = if (centerness == null) 1.0 else sigmoid(centerness[anchor].toDouble())
            for (label in 0 until classes) {
                val score = sigmoid(logits[from + label].toDouble())
                scores[to + label] = (if (centerness == null) score else Math.sqrt(score * centre)).toFloat()
            }
        }
        return scores
    }

    /** Corners of an anchor's box, cut at the borders of the input; null where they are no numbers. */
    private fun box(numbers: FloatArray, anchor: Int): FloatArray? {
        val at = anchor * 4
        val corners = FloatArray(4)
        for (axis in 0..1) {
            val low = anchors[at + axis]
            val high = anchors[at + 2 + axis]
            val size = high - low
            val limit = if (axis == 0) width else height
            if (isOffsets) {
                val centre = (numbers[at + axis] / weights[axis]) * size + (low + 0.5 * size)
                val half = 0.5 * (exponential(minOf(numbers[at + 2 + axis] / weights[2 + axis], scaleLimit)) * size)
                corners[axis] = cut(centre - half, limit)
                corners[2 + axis] = cut(centre + half, limit)
            } else {
                val middle = 0.5 * (low + high)
                corners[axis] = cut(middle - numbers[at + axis] * size, limit)
                corners[2 + axis] = cut(middle + numbers[at + 2 + axis] * size, limit)
            }
        }
        return if (corners.any { it.isNaN() }) null else corners
    }

    private fun cut(value: Double, limit: Double): Float = (minOf(maxOf(value, 0.0), limit) + 0.0).toFloat()

    private fun withoutOverlaps(found: List<Candidate>): List<DetectedBox> {
        val kept = ArrayList<DetectedBox>()
        val ofLabel = HashMap<Int, ArrayList<FloatArray>>()
        for (each in found) {
            if (kept.size == most) break
            val better = ofLabel.getOrPut(each.label) { ArrayList() }
            if (better.any { overlap(it, each.box) > iouThreshold }) continue
            better.add(each.box)
            kept.add(DetectedBox(each.box[0], each.box[1], each.box[2], each.box[3], each.label, each.score))
        }
        return kept
    }

    private fun overlap(one: FloatArray, other: FloatArray): Double {
        val wide = maxOf(minOf(one[2], other[2]).toDouble() - maxOf(one[0], other[0]).toDouble(), 0.0)
        val high = maxOf(minOf(one[3], other[3]).toDouble() - maxOf(one[1], other[1]).toDouble(), 0.0)
        val shared = wide * high
        val either = area(one) + area(other) - shared
        return if (either > 0) shared / either else 0.0
    }

    private fun area(box: FloatArray): Double = (box[2].toDouble() - box[0].toDouble()) * (box[3].toDouble() - box[1].toDouble())

    private fun sigmoid(value: Double): Double = 1.0 / (1.0 + exponential(-value))

    private fun exponential(value: Double): Double {
        if (value.isNaN()) return value
        val bounded = minOf(maxOf(value, -LARGEST_EXPONENT), LARGEST_EXPONENT)
        val whole = Math.floor(bounded * LOG2_E + 0.5)
        val rest = (bounded - whole * LN_2_HIGH) - whole * LN_2_LOW
        var series = TAYLOR[0]
        for (term in 1 until TAYLOR.size) series = series * rest + TAYLOR[term]
        return series * Double.fromBits((whole.toLong() + 1023L) shl 52)
    }

    companion object {
        private const val LARGEST_EXPONENT = 708.0
        private const val LOG2_E = 1.4426950408889634
        private const val LN_2_HIGH = 0.6931471803691238
        private const val LN_2_LOW = 1.9082149292705877e-10
        private val TAYLOR = doubleArrayOf(
            1.6059043836821613e-10, 2.08767569878681e-9, 2.505210838544172e-8, 2.755731922398589e-7, 2.7557319223985893e-6,
            2.48015873015873e-5, 0.0001984126984126984, 0.001388888888888889, 0.008333333333333333, 0.041666666666666664,
            0.16666666666666666, 0.5, 1.0, 1.0,
        )

        /** A number of the card. Throws `CardException` where there is none. */
        fun number(from: Map<*, *>, name: String): Double =
            from[name] as? Double ?: throw CardException("the card: $name of its decision is no number")

        private fun numbers(given: Any?): DoubleArray = (given as List<*>).map { it as Double }.toDoubleArray()
    }
}
