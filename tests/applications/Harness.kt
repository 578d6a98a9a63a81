// Runs the plain Kotlin module of an Android app on a desktop: jobs on standard input, a line each.
import edgeopt.core.Answering
import edgeopt.core.AppTask
import edgeopt.core.BoxAnswering
import edgeopt.core.BoxDecoder
import edgeopt.core.Card
import edgeopt.core.CardException
import edgeopt.core.ClassAnswering
import edgeopt.core.Geometry
import edgeopt.core.Json
import edgeopt.core.JsonText
import edgeopt.core.LabelAnswering
import edgeopt.core.MaskAnswering
import edgeopt.core.ModelInput
import edgeopt.core.ModelOutputs
import edgeopt.core.Overlay
import edgeopt.core.PlacedBox
import edgeopt.core.PlacedMask
import edgeopt.core.Preprocessor
import edgeopt.core.RgbImage
import edgeopt.core.SelfTest
import edgeopt.core.Size
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun main() {
    while (true) {
        val job = (readlnOrNull() ?: return).split("\t")
        if (job[0] == "json") {
            println(JsonText.of(Json.parse(File(job[1]).readText())))
            continue
        }
        if (job[0] == "decode") {
            decode(job)
            continue
        }
        if (job[0] == "overlay") {
            overlay(job.drop(1).map { it.toInt() })
            continue
        }
        val card = try {
            Card.parse(File(job[1]).readText())
        } catch (error: Exception) {
            println("${error::class.simpleName}: ${error.message}")
            continue
        }
        try {
            when (job[0]) {
                "feed" -> feed(card, job)
                "answer" -> answer(card, job)
                "task" -> println(AppTask.answering(card)::class.simpleName)
                "self-test" -> selfTest(card, job)
            }
        } catch (error: CardException) {
            println("CardException: ${error.message}")
        }
    }
}

/** feed CARD RGBA WIDTH HEIGHT ORIENTATION PIXELS INPUT */
private fun feed(card: Card, job: List<String>) {
    val (width, height, orientation) = job.slice(3..5).map { it.toInt() }
    val image = given(card, File(job[2]).readBytes(), width, height).upright(orientation)
    val pixels = Preprocessor(card.preprocessing).pixels(image)
    val input = ModelInput(card)
    val buffer = input.buffer()
    input.write(pixels, buffer)
    File(job[6]).writeBytes(pixels)
    File(job[7]).writeBytes(ByteArray(input.byteCount).also { buffer.get(it) })
    println("fed")
}

/** An opaque image as a camera gives it, with bytes between its rows that mean nothing; others on their ground. */
private fun given(card: Card, rgba: ByteArray, width: Int, height: Int): RgbImage {
    if (rgba.indices.any { it % 4 == 3 && rgba[it] != (-1).toByte() }) {
        return RgbImage.onGround(rgba, width, height, card.preprocessing.background)
    }
    val rowStride = width * 4 + 12
    val frame = ByteBuffer.allocateDirect(rowStride * (height - 1) + width * 4)
    for (y in 0 until height) frame.position(y * rowStride).also { frame.put(rgba, y * width * 4, width * 4) }
    return RgbImage.ofFrame(frame, width, height, rowStride, ByteArray(7))
}

/** answer CARD OUTPUTS WIDTH HEIGHT, with the bytes of all outputs one after the other, for an image of that size */
private fun answer(card: Card, job: List<String>) {
    val task: Answering = when (card.task) {
        "classification" -> ClassAnswering(card)
        "multi-label" -> LabelAnswering(card)
        "segmentation" -> MaskAnswering(card)
        "detection" -> BoxAnswering(card)
        else -> throw CardException("the task ${card.task} is not here")
    }
    val outputs = ModelOutputs(card)
    val bytes = ByteBuffer.wrap(File(job[2]).readBytes())
    val buffers = outputs.buffers()
    for (buffer in buffers) while (buffer.hasRemaining()) buffer.put(bytes.get())
    val found = task.answer(outputs.values(buffers), Geometry.of(card.preprocessing, job[3].toInt(), job[4].toInt()))
    println(
        JsonText.of(
            mapOf(
                "lines" to found.lines,
                "guesses" to found.guesses.map { listOf(it.label, it.share) },
                "boxes" to found.boxes.map { listOf(it.left, it.top, it.right, it.bottom, it.label, it.text) },
                "mask" to found.mask?.classes?.toList(),
                "legend" to found.legend.map { listOf(it.label, it.text) },
            ),
        ),
    )
}

/** overlay FRAME_HEIGHT FRAME_WIDTH TURN VIEW_HEIGHT VIEW_WIDTH SIDE LEFT TOP RIGHT BOTTOM: a box and the matrix of a mask */
private fun overlay(given: List<Int>) {
    val frame = Size(given[0], given[1])
    val overlay = Overlay(frame, given[2], Size(given[3], given[4]))
    val (left, top, right, bottom) = given.slice(6..9).map { it.toDouble() }
    val network = Size(given[5], given[5])
    val mask = PlacedMask(given[5], given[5], IntArray(given[5] * given[5]))
    val matrix = overlay.matrix(mask, Geometry(frame, network, network, 0, 0))
    println(JsonText.of(listOf(overlay.box(PlacedBox(left, top, right, bottom, 0, "")).toList(), matrix.toList())))
}

/** self-test CARD ADDED, with the right answers and `ADDED` more */
private fun selfTest(card: Card, job: List<String>) {
    var next = 0
    val result = SelfTest.run(card) {
        val vector = card.vectors[next++]
        FloatArray(vector.answers.keys.max() + 1) { (vector.answers[it] ?: 0f) + job[2].toFloat() }
    }
    println("${result.passed}\t${result.pixelDifference}\t${result.outputDifference}")
}

/** decode DESCRIPTIONS HEADS BOXES, with 250 images for each description */
private fun decode(job: List<String>) {
    val heads = ByteBuffer.wrap(File(job[2]).readBytes()).order(ByteOrder.LITTLE_ENDIAN)
    fun floats(count: Int) = FloatArray(count) { heads.getFloat() }
    val boxes = ByteBuffer.allocate(1 shl 22).order(ByteOrder.LITTLE_ENDIAN)
    for (given in Json.parse(File(job[1]).readText()) as List<*>) {
        val decoding = given as Map<*, *>
        val decoder = BoxDecoder(decoding)
        val count = decoder.anchorCount
        val columns = (decoding["classes"] as Double).toInt() + (if (decoding["background"] == null) 0 else 1)
        repeat(250) {
            val centerness = decoding["scores"] == "sigmoid-centerness"
            val found = decoder.decode(floats(count * columns), floats(count * 4), if (centerness) floats(count) else null)
            boxes.putInt(found.size)
            for (box in found) {
                for (value in listOf(box.x1, box.y1, box.x2, box.y2, box.score)) boxes.putFloat(value)
                boxes.putInt(box.label)
            }
        }
    }
    File(job[3]).writeBytes(boxes.array().copyOf(boxes.position()))
    println("decoded")
}
