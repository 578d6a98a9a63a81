"""The operators of TensorFlow that edgeopt runs from a file of somebody else's. Light.

A SavedModel is a program: TensorFlow has operators that read and write files, print, call Python, or end the process,
and declares many of them to have no effects. So what may run is listed, and not what may not.
"""

from __future__ import annotations

COMPUTES = frozenset(
    """
    Abs AccumulateNV2 Acos Acosh Add AddN AddV2 AdjustContrastv2 AdjustHue AdjustSaturation All Any ApproximateEqual
    ArgMax ArgMin Asin Asinh Assert Assign AssignAddVariableOp AssignSubVariableOp AssignVariableOp Atan Atan2 Atanh
    AvgPool AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchNormWithGlobalNormalization BatchToSpace
    BatchToSpaceND BiasAdd BiasAddV1 Bitcast BitwiseAnd BitwiseOr BitwiseXor BroadcastArgs BroadcastTo Bucketize Case
    Cast Ceil CheckNumerics ClipByValue CombinedNonMaxSuppression Concat ConcatOffset ConcatV2 Const Conv Conv2D
    Conv2DBackpropInput Conv2DBackpropInputV2 Conv3D ConjugateTranspose CropAndResize Cos Cosh Cross Cumprod Cumsum
    CumulativeLogsumexp DepthToSpace DepthwiseConv2dNative Dequantize DestroyResourceOp Diag DiagPart Dilation2D
    DisableCopyOnRead Div DivNoNan DynamicPartition DynamicStitch Einsum Elu Empty EnsureShape Enter Equal Erf Erfc
    Erfinv EuclideanNorm Exit Exp ExpandDims Expm1 ExtractImagePatches FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsPerChannel FFT FFT2D FFT3D Fill Floor FloorDiv FloorMod FractionalAvgPool FractionalMaxPool
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual GuaranteeConst
    HSVToRGB Identity IdentityN If IFFT IFFT2D IFFT3D ImageProjectiveTransformV2 ImageProjectiveTransformV3 InTopK
    InTopKV2 Inv Invert InvertPermutation IRFFT IRFFT2D IsFinite IsInf IsNan IsVariableInitialized L2Loss LRN LeakyRelu
    LeftShift Less LessEqual Lgamma LinSpace ListDiff Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr LoopCond
    MatMul MatrixBandPart MatrixDiag MatrixDiagV3 MatrixInverse Max MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax
    Maximum Mean Merge Min Minimum MirrorPad Mod Mul MulNoNan Multinomial Neg NextIteration NoOp NonMaxSuppression
    NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 NotEqual OneHot OnesLike Pack Pad
    PadV2 ParallelConcat ParallelDynamicStitch PartitionedCall Placeholder PlaceholderV2 PlaceholderWithDefault Pow
    PreventGradient Prod Qr QuantizeAndDequantize QuantizeAndDequantizeV2 QuantizeAndDequantizeV3
    QuantizeAndDequantizeV4 QuantizeV2 RandomStandardNormal RandomUniform RandomUniformInt Range Rank ReadVariableOp
    Real RealDiv Reciprocal RefEnter RefExit RefIdentity RefMerge RefNextIteration RefSwitch Relu Relu6 Requantize
    Reshape ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ResourceGather ResourceGatherNd Reverse
    ReverseSequence ReverseV2 RFFT RFFT2D RGBToHSV RightShift Rint Roll Round Rsqrt ScaleAndTranslate ScatterNd
    SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Sinh
    Size Slice Snapshot Softmax Softplus Softsign SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square
    SquaredDifference Squeeze StatefulPartitionedCall StatelessCase StatelessIf StatelessRandomGetKeyCounter
    StatelessRandomNormal StatelessRandomNormalV2 StatelessRandomUniform StatelessRandomUniformInt
    StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessTruncatedNormal StatelessTruncatedNormalV2
    StatelessWhile StopGradient StridedSlice Sub Sum Svd Switch Tan Tanh TensorListConcat TensorListConcatV2
    TensorListElementShape TensorListFromTensor TensorListGetItem TensorListLength TensorListPopBack
    TensorListPushBack TensorListReserve TensorListSetItem TensorListStack TensorScatterAdd TensorScatterMax
    TensorScatterMin TensorScatterSub TensorScatterUpdate Tile TopK TopKV2 Transpose TruncateDiv TruncateMod
    TruncatedNormal Unique UniqueV2 Unpack UnravelIndex UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd
    UnsortedSegmentSum VarHandleOp VarIsInitializedOp Variable VariableShape VariableV2 Where While Xdivy Xlog1py Xlogy
    ZerosLike
    """.split()  # noqa: SIM905 - a name a line would fill this file many times over
)
"""Arithmetic on tensors, control flow, random numbers, and variables in memory."""

RESTORES = frozenset({"RestoreV2", "ShardedFilename", "StaticRegexFullMatch", "StringJoin"})
"""What fills variables from TensorFlow's checkpoints, besides: allowed where a SavedModel restores itself."""

SAVES = RESTORES | {"MergeV2Checkpoints", "SaveV2"}
"""What writes checkpoints, besides: every SavedModel brings it along, and edgeopt does not run it."""
