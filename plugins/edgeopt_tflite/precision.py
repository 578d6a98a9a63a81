"""Precisions that are made of a float file: ai-edge-quantizer's recipes."""

from __future__ import annotations

from ai_edge_quantizer import quantizer, recipe, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName

from edgeopt.export.predictor import quiet


def to_precision(content: bytes, precision: str) -> bytes:
    """The file with its weights in float16 or int8; activations stay float32.

    "float16" and "weight-only-int8" compute in float32, "dynamic-int8" in int8 with ranges taken at run time.
    Source: https://github.com/google-ai-edge/ai-edge-quantizer
    """
    recipes = {
        "float16": _float16,
        "dynamic-int8": _dynamic_int8,
        "weight-only-int8": recipe.weight_only_wi8_afp32,
    }
    with quiet():
        converter = quantizer.Quantizer(bytearray(content), recipes[precision]())
        return bytes(converter.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)


def _dynamic_int8() -> recipe.qtyping.ModelQuantizationRecipe:
    """Integer layers, but for depthwise convolutions: XNNPACK has no kernel that takes their ranges at run time."""
    manager = recipe_manager.RecipeManager()
    manager.add_dynamic_config(".*", TFLOperationName.ALL_SUPPORTED, num_bits=8)
    manager.add_weight_only_config(".*", TFLOperationName.DEPTHWISE_CONV_2D, num_bits=8)
    return manager.get_quantization_recipe()


def _float16() -> recipe.qtyping.ModelQuantizationRecipe:
    manager = recipe_manager.RecipeManager()
    manager.add_weight_only_config(
        ".*", TFLOperationName.ALL_SUPPORTED, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
    )
    return manager.get_quantization_recipe()
