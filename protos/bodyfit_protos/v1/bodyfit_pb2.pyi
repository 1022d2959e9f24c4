from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DepthEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEPTH_ENCODING_UNSPECIFIED: _ClassVar[DepthEncoding]
    DEPTH_ENCODING_RAW_UINT16: _ClassVar[DepthEncoding]
    DEPTH_ENCODING_RAW_FLOAT32: _ClassVar[DepthEncoding]
    DEPTH_ENCODING_PNG16: _ClassVar[DepthEncoding]
    DEPTH_ENCODING_ZSTD_UINT16: _ClassVar[DepthEncoding]
    DEPTH_ENCODING_ZSTD_FLOAT32: _ClassVar[DepthEncoding]

class ColorEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLOR_ENCODING_UNSPECIFIED: _ClassVar[ColorEncoding]
    COLOR_ENCODING_RAW_RGB8: _ClassVar[ColorEncoding]
    COLOR_ENCODING_JPEG: _ClassVar[ColorEncoding]
    COLOR_ENCODING_PNG: _ClassVar[ColorEncoding]

class MaskEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_ENCODING_UNSPECIFIED: _ClassVar[MaskEncoding]
    MASK_ENCODING_RAW_UINT8: _ClassVar[MaskEncoding]
    MASK_ENCODING_PNG: _ClassVar[MaskEncoding]

class DistortionModel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISTORTION_MODEL_UNSPECIFIED: _ClassVar[DistortionModel]
    DISTORTION_MODEL_NONE: _ClassVar[DistortionModel]
    DISTORTION_MODEL_BROWN_CONRADY: _ClassVar[DistortionModel]
    DISTORTION_MODEL_RATIONAL: _ClassVar[DistortionModel]

class Sex(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEX_UNSPECIFIED: _ClassVar[Sex]
    SEX_FEMALE: _ClassVar[Sex]
    SEX_MALE: _ClassVar[Sex]
    SEX_NEUTRAL: _ClassVar[Sex]

class Clothing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOTHING_UNSPECIFIED: _ClassVar[Clothing]
    CLOTHING_AUTO: _ClassVar[Clothing]
    CLOTHING_TIGHT: _ClassVar[Clothing]
    CLOTHING_CASUAL: _ClassVar[Clothing]
    CLOTHING_LOOSE: _ClassVar[Clothing]

class MeshFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MESH_FORMAT_UNSPECIFIED: _ClassVar[MeshFormat]
    MESH_FORMAT_PLY: _ClassVar[MeshFormat]
    MESH_FORMAT_GLB: _ClassVar[MeshFormat]

class StopReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_REASON_UNSPECIFIED: _ClassVar[StopReason]
    STOP_REASON_CONVERGED: _ClassVar[StopReason]
    STOP_REASON_STEPS_USED: _ClassVar[StopReason]
    STOP_REASON_STUCK: _ClassVar[StopReason]
    STOP_REASON_CANCELLED: _ClassVar[StopReason]
    STOP_REASON_NO_EVIDENCE: _ClassVar[StopReason]

class TrackState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRACK_STATE_UNSPECIFIED: _ClassVar[TrackState]
    TRACK_STATE_FOUND: _ClassVar[TrackState]
    TRACK_STATE_TRACKED: _ClassVar[TrackState]
    TRACK_STATE_COASTING: _ClassVar[TrackState]
    TRACK_STATE_LOST: _ClassVar[TrackState]
DEPTH_ENCODING_UNSPECIFIED: DepthEncoding
DEPTH_ENCODING_RAW_UINT16: DepthEncoding
DEPTH_ENCODING_RAW_FLOAT32: DepthEncoding
DEPTH_ENCODING_PNG16: DepthEncoding
DEPTH_ENCODING_ZSTD_UINT16: DepthEncoding
DEPTH_ENCODING_ZSTD_FLOAT32: DepthEncoding
COLOR_ENCODING_UNSPECIFIED: ColorEncoding
COLOR_ENCODING_RAW_RGB8: ColorEncoding
COLOR_ENCODING_JPEG: ColorEncoding
COLOR_ENCODING_PNG: ColorEncoding
MASK_ENCODING_UNSPECIFIED: MaskEncoding
MASK_ENCODING_RAW_UINT8: MaskEncoding
MASK_ENCODING_PNG: MaskEncoding
DISTORTION_MODEL_UNSPECIFIED: DistortionModel
DISTORTION_MODEL_NONE: DistortionModel
DISTORTION_MODEL_BROWN_CONRADY: DistortionModel
DISTORTION_MODEL_RATIONAL: DistortionModel
SEX_UNSPECIFIED: Sex
SEX_FEMALE: Sex
SEX_MALE: Sex
SEX_NEUTRAL: Sex
CLOTHING_UNSPECIFIED: Clothing
CLOTHING_AUTO: Clothing
CLOTHING_TIGHT: Clothing
CLOTHING_CASUAL: Clothing
CLOTHING_LOOSE: Clothing
MESH_FORMAT_UNSPECIFIED: MeshFormat
MESH_FORMAT_PLY: MeshFormat
MESH_FORMAT_GLB: MeshFormat
STOP_REASON_UNSPECIFIED: StopReason
STOP_REASON_CONVERGED: StopReason
STOP_REASON_STEPS_USED: StopReason
STOP_REASON_STUCK: StopReason
STOP_REASON_CANCELLED: StopReason
STOP_REASON_NO_EVIDENCE: StopReason
TRACK_STATE_UNSPECIFIED: TrackState
TRACK_STATE_FOUND: TrackState
TRACK_STATE_TRACKED: TrackState
TRACK_STATE_COASTING: TrackState
TRACK_STATE_LOST: TrackState

class Distortion(_message.Message):
    __slots__ = ("model", "coefficients")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COEFFICIENTS_FIELD_NUMBER: _ClassVar[int]
    model: DistortionModel
    coefficients: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, model: _Optional[_Union[DistortionModel, str]] = ..., coefficients: _Optional[_Iterable[float]] = ...) -> None: ...

class Camera(_message.Message):
    __slots__ = ("width", "height", "fx", "fy", "cx", "cy", "distortion")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FX_FIELD_NUMBER: _ClassVar[int]
    FY_FIELD_NUMBER: _ClassVar[int]
    CX_FIELD_NUMBER: _ClassVar[int]
    CY_FIELD_NUMBER: _ClassVar[int]
    DISTORTION_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: Distortion
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., fx: _Optional[float] = ..., fy: _Optional[float] = ..., cx: _Optional[float] = ..., cy: _Optional[float] = ..., distortion: _Optional[_Union[Distortion, _Mapping]] = ...) -> None: ...

class RigidTransform(_message.Message):
    __slots__ = ("matrix",)
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    matrix: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, matrix: _Optional[_Iterable[float]] = ...) -> None: ...

class Sensor(_message.Message):
    __slots__ = ("name", "depth_camera", "color_camera", "t_color_depth", "t_world_depth", "depth_unit_m")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEPTH_CAMERA_FIELD_NUMBER: _ClassVar[int]
    COLOR_CAMERA_FIELD_NUMBER: _ClassVar[int]
    T_COLOR_DEPTH_FIELD_NUMBER: _ClassVar[int]
    T_WORLD_DEPTH_FIELD_NUMBER: _ClassVar[int]
    DEPTH_UNIT_M_FIELD_NUMBER: _ClassVar[int]
    name: str
    depth_camera: Camera
    color_camera: Camera
    t_color_depth: RigidTransform
    t_world_depth: RigidTransform
    depth_unit_m: float
    def __init__(self, name: _Optional[str] = ..., depth_camera: _Optional[_Union[Camera, _Mapping]] = ..., color_camera: _Optional[_Union[Camera, _Mapping]] = ..., t_color_depth: _Optional[_Union[RigidTransform, _Mapping]] = ..., t_world_depth: _Optional[_Union[RigidTransform, _Mapping]] = ..., depth_unit_m: _Optional[float] = ...) -> None: ...

class DepthImage(_message.Message):
    __slots__ = ("encoding", "data")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    encoding: DepthEncoding
    data: bytes
    def __init__(self, encoding: _Optional[_Union[DepthEncoding, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ColorImage(_message.Message):
    __slots__ = ("encoding", "data")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    encoding: ColorEncoding
    data: bytes
    def __init__(self, encoding: _Optional[_Union[ColorEncoding, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class MaskImage(_message.Message):
    __slots__ = ("encoding", "data")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    encoding: MaskEncoding
    data: bytes
    def __init__(self, encoding: _Optional[_Union[MaskEncoding, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Keypoints(_message.Message):
    __slots__ = ("names", "xy", "confidence")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    XY_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    xy: _containers.RepeatedScalarFieldContainer[float]
    confidence: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., xy: _Optional[_Iterable[float]] = ..., confidence: _Optional[_Iterable[float]] = ...) -> None: ...

class SensorFrame(_message.Message):
    __slots__ = ("sensor", "depth", "color", "mask", "keypoints", "depth_timestamp_s", "t_world_depth")
    SENSOR_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    DEPTH_TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    T_WORLD_DEPTH_FIELD_NUMBER: _ClassVar[int]
    sensor: str
    depth: DepthImage
    color: ColorImage
    mask: MaskImage
    keypoints: Keypoints
    depth_timestamp_s: float
    t_world_depth: RigidTransform
    def __init__(self, sensor: _Optional[str] = ..., depth: _Optional[_Union[DepthImage, _Mapping]] = ..., color: _Optional[_Union[ColorImage, _Mapping]] = ..., mask: _Optional[_Union[MaskImage, _Mapping]] = ..., keypoints: _Optional[_Union[Keypoints, _Mapping]] = ..., depth_timestamp_s: _Optional[float] = ..., t_world_depth: _Optional[_Union[RigidTransform, _Mapping]] = ...) -> None: ...

class Instant(_message.Message):
    __slots__ = ("index", "timestamp_s", "frames")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    index: int
    timestamp_s: float
    frames: _containers.RepeatedCompositeFieldContainer[SensorFrame]
    def __init__(self, index: _Optional[int] = ..., timestamp_s: _Optional[float] = ..., frames: _Optional[_Iterable[_Union[SensorFrame, _Mapping]]] = ...) -> None: ...

class Vector3(_message.Message):
    __slots__ = ("x", "y", "z")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    z: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., z: _Optional[float] = ...) -> None: ...

class RecordingHeader(_message.Message):
    __slots__ = ("sensors", "gravity_world")
    SENSORS_FIELD_NUMBER: _ClassVar[int]
    GRAVITY_WORLD_FIELD_NUMBER: _ClassVar[int]
    sensors: _containers.RepeatedCompositeFieldContainer[Sensor]
    gravity_world: Vector3
    def __init__(self, sensors: _Optional[_Iterable[_Union[Sensor, _Mapping]]] = ..., gravity_world: _Optional[_Union[Vector3, _Mapping]] = ...) -> None: ...

class FitOptions(_message.Message):
    __slots__ = ("model", "sex", "clothing", "person", "refine_extrinsics")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SEX_FIELD_NUMBER: _ClassVar[int]
    CLOTHING_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    REFINE_EXTRINSICS_FIELD_NUMBER: _ClassVar[int]
    model: str
    sex: Sex
    clothing: Clothing
    person: int
    refine_extrinsics: bool
    def __init__(self, model: _Optional[str] = ..., sex: _Optional[_Union[Sex, str]] = ..., clothing: _Optional[_Union[Clothing, str]] = ..., person: _Optional[int] = ..., refine_extrinsics: _Optional[bool] = ...) -> None: ...

class FitOutputs(_message.Message):
    __slots__ = ("joints", "vertices", "mesh", "overlays")
    JOINTS_FIELD_NUMBER: _ClassVar[int]
    VERTICES_FIELD_NUMBER: _ClassVar[int]
    MESH_FIELD_NUMBER: _ClassVar[int]
    OVERLAYS_FIELD_NUMBER: _ClassVar[int]
    joints: bool
    vertices: bool
    mesh: MeshFormat
    overlays: bool
    def __init__(self, joints: _Optional[bool] = ..., vertices: _Optional[bool] = ..., mesh: _Optional[_Union[MeshFormat, str]] = ..., overlays: _Optional[bool] = ...) -> None: ...

class FitRequest(_message.Message):
    __slots__ = ("header", "instants", "options", "outputs")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    INSTANTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    header: RecordingHeader
    instants: _containers.RepeatedCompositeFieldContainer[Instant]
    options: FitOptions
    outputs: FitOutputs
    def __init__(self, header: _Optional[_Union[RecordingHeader, _Mapping]] = ..., instants: _Optional[_Iterable[_Union[Instant, _Mapping]]] = ..., options: _Optional[_Union[FitOptions, _Mapping]] = ..., outputs: _Optional[_Union[FitOutputs, _Mapping]] = ...) -> None: ...

class FitResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: FitResult
    def __init__(self, result: _Optional[_Union[FitResult, _Mapping]] = ...) -> None: ...

class BodyModelInfo(_message.Message):
    __slots__ = ("name", "sha256", "family", "licence", "num_vertices", "num_joints", "num_betas", "default", "origin", "joint_names")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    NUM_VERTICES_FIELD_NUMBER: _ClassVar[int]
    NUM_JOINTS_FIELD_NUMBER: _ClassVar[int]
    NUM_BETAS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    JOINT_NAMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    family: str
    licence: str
    num_vertices: int
    num_joints: int
    num_betas: int
    default: bool
    origin: str
    joint_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., family: _Optional[str] = ..., licence: _Optional[str] = ..., num_vertices: _Optional[int] = ..., num_joints: _Optional[int] = ..., num_betas: _Optional[int] = ..., default: _Optional[bool] = ..., origin: _Optional[str] = ..., joint_names: _Optional[_Iterable[str]] = ...) -> None: ...

class Measurement(_message.Message):
    __slots__ = ("name", "value", "sd", "seen", "definition", "unit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SD_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    sd: float
    seen: bool
    definition: str
    unit: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., sd: _Optional[float] = ..., seen: _Optional[bool] = ..., definition: _Optional[str] = ..., unit: _Optional[str] = ...) -> None: ...

class NamedValue(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class FrameQuality(_message.Message):
    __slots__ = ("depth_residual_m", "silhouette_iou", "covered", "coverage", "flags", "stop_reason", "ambiguity", "believed")
    DEPTH_RESIDUAL_M_FIELD_NUMBER: _ClassVar[int]
    SILHOUETTE_IOU_FIELD_NUMBER: _ClassVar[int]
    COVERED_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    AMBIGUITY_FIELD_NUMBER: _ClassVar[int]
    BELIEVED_FIELD_NUMBER: _ClassVar[int]
    depth_residual_m: float
    silhouette_iou: float
    covered: float
    coverage: _containers.RepeatedCompositeFieldContainer[NamedValue]
    flags: _containers.RepeatedScalarFieldContainer[str]
    stop_reason: StopReason
    ambiguity: float
    believed: bool
    def __init__(self, depth_residual_m: _Optional[float] = ..., silhouette_iou: _Optional[float] = ..., covered: _Optional[float] = ..., coverage: _Optional[_Iterable[_Union[NamedValue, _Mapping]]] = ..., flags: _Optional[_Iterable[str]] = ..., stop_reason: _Optional[_Union[StopReason, str]] = ..., ambiguity: _Optional[float] = ..., believed: _Optional[bool] = ...) -> None: ...

class Overlay(_message.Message):
    __slots__ = ("sensor", "png")
    SENSOR_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    sensor: str
    png: bytes
    def __init__(self, sensor: _Optional[str] = ..., png: _Optional[bytes] = ...) -> None: ...

class InstantResult(_message.Message):
    __slots__ = ("index", "timestamp_s", "pose", "pose_sd", "transl", "quality", "joints", "vertices", "mesh", "overlays")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    POSE_FIELD_NUMBER: _ClassVar[int]
    POSE_SD_FIELD_NUMBER: _ClassVar[int]
    TRANSL_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    JOINTS_FIELD_NUMBER: _ClassVar[int]
    VERTICES_FIELD_NUMBER: _ClassVar[int]
    MESH_FIELD_NUMBER: _ClassVar[int]
    OVERLAYS_FIELD_NUMBER: _ClassVar[int]
    index: int
    timestamp_s: float
    pose: _containers.RepeatedScalarFieldContainer[float]
    pose_sd: _containers.RepeatedScalarFieldContainer[float]
    transl: _containers.RepeatedScalarFieldContainer[float]
    quality: FrameQuality
    joints: _containers.RepeatedScalarFieldContainer[float]
    vertices: _containers.RepeatedScalarFieldContainer[float]
    mesh: bytes
    overlays: _containers.RepeatedCompositeFieldContainer[Overlay]
    def __init__(self, index: _Optional[int] = ..., timestamp_s: _Optional[float] = ..., pose: _Optional[_Iterable[float]] = ..., pose_sd: _Optional[_Iterable[float]] = ..., transl: _Optional[_Iterable[float]] = ..., quality: _Optional[_Union[FrameQuality, _Mapping]] = ..., joints: _Optional[_Iterable[float]] = ..., vertices: _Optional[_Iterable[float]] = ..., mesh: _Optional[bytes] = ..., overlays: _Optional[_Iterable[_Union[Overlay, _Mapping]]] = ...) -> None: ...

class SkippedInstant(_message.Message):
    __slots__ = ("index", "reason")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: str
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class PartCoverage(_message.Message):
    __slots__ = ("part", "instants")
    PART_FIELD_NUMBER: _ClassVar[int]
    INSTANTS_FIELD_NUMBER: _ClassVar[int]
    part: str
    instants: int
    def __init__(self, part: _Optional[str] = ..., instants: _Optional[int] = ...) -> None: ...

class SensorPlace(_message.Message):
    __slots__ = ("name", "t_world_depth", "given", "fixed", "moved_m", "turned_deg", "moved_sd_m", "turned_sd_deg", "delay_s", "delay_sd_s", "flags")
    NAME_FIELD_NUMBER: _ClassVar[int]
    T_WORLD_DEPTH_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    MOVED_M_FIELD_NUMBER: _ClassVar[int]
    TURNED_DEG_FIELD_NUMBER: _ClassVar[int]
    MOVED_SD_M_FIELD_NUMBER: _ClassVar[int]
    TURNED_SD_DEG_FIELD_NUMBER: _ClassVar[int]
    DELAY_S_FIELD_NUMBER: _ClassVar[int]
    DELAY_SD_S_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    t_world_depth: RigidTransform
    given: RigidTransform
    fixed: bool
    moved_m: float
    turned_deg: float
    moved_sd_m: float
    turned_sd_deg: float
    delay_s: float
    delay_sd_s: float
    flags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., t_world_depth: _Optional[_Union[RigidTransform, _Mapping]] = ..., given: _Optional[_Union[RigidTransform, _Mapping]] = ..., fixed: _Optional[bool] = ..., moved_m: _Optional[float] = ..., turned_deg: _Optional[float] = ..., moved_sd_m: _Optional[float] = ..., turned_sd_deg: _Optional[float] = ..., delay_s: _Optional[float] = ..., delay_sd_s: _Optional[float] = ..., flags: _Optional[_Iterable[str]] = ...) -> None: ...

class FitResult(_message.Message):
    __slots__ = ("model", "sex", "clothing", "clothing_asked", "betas", "betas_cov", "instants", "garments_m", "coverage", "stop_reason", "converged", "flags", "hints", "measurements", "provenance_json", "skipped", "sensors", "rest_vertices", "glb")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SEX_FIELD_NUMBER: _ClassVar[int]
    CLOTHING_FIELD_NUMBER: _ClassVar[int]
    CLOTHING_ASKED_FIELD_NUMBER: _ClassVar[int]
    BETAS_FIELD_NUMBER: _ClassVar[int]
    BETAS_COV_FIELD_NUMBER: _ClassVar[int]
    INSTANTS_FIELD_NUMBER: _ClassVar[int]
    GARMENTS_M_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    CONVERGED_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    HINTS_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_JSON_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    SENSORS_FIELD_NUMBER: _ClassVar[int]
    REST_VERTICES_FIELD_NUMBER: _ClassVar[int]
    GLB_FIELD_NUMBER: _ClassVar[int]
    model: BodyModelInfo
    sex: Sex
    clothing: Clothing
    clothing_asked: Clothing
    betas: _containers.RepeatedScalarFieldContainer[float]
    betas_cov: _containers.RepeatedScalarFieldContainer[float]
    instants: _containers.RepeatedCompositeFieldContainer[InstantResult]
    garments_m: _containers.RepeatedCompositeFieldContainer[NamedValue]
    coverage: _containers.RepeatedCompositeFieldContainer[PartCoverage]
    stop_reason: StopReason
    converged: bool
    flags: _containers.RepeatedScalarFieldContainer[str]
    hints: _containers.RepeatedScalarFieldContainer[str]
    measurements: _containers.RepeatedCompositeFieldContainer[Measurement]
    provenance_json: str
    skipped: _containers.RepeatedCompositeFieldContainer[SkippedInstant]
    sensors: _containers.RepeatedCompositeFieldContainer[SensorPlace]
    rest_vertices: _containers.RepeatedScalarFieldContainer[float]
    glb: bytes
    def __init__(self, model: _Optional[_Union[BodyModelInfo, _Mapping]] = ..., sex: _Optional[_Union[Sex, str]] = ..., clothing: _Optional[_Union[Clothing, str]] = ..., clothing_asked: _Optional[_Union[Clothing, str]] = ..., betas: _Optional[_Iterable[float]] = ..., betas_cov: _Optional[_Iterable[float]] = ..., instants: _Optional[_Iterable[_Union[InstantResult, _Mapping]]] = ..., garments_m: _Optional[_Iterable[_Union[NamedValue, _Mapping]]] = ..., coverage: _Optional[_Iterable[_Union[PartCoverage, _Mapping]]] = ..., stop_reason: _Optional[_Union[StopReason, str]] = ..., converged: _Optional[bool] = ..., flags: _Optional[_Iterable[str]] = ..., hints: _Optional[_Iterable[str]] = ..., measurements: _Optional[_Iterable[_Union[Measurement, _Mapping]]] = ..., provenance_json: _Optional[str] = ..., skipped: _Optional[_Iterable[_Union[SkippedInstant, _Mapping]]] = ..., sensors: _Optional[_Iterable[_Union[SensorPlace, _Mapping]]] = ..., rest_vertices: _Optional[_Iterable[float]] = ..., glb: _Optional[bytes] = ...) -> None: ...

class FitRecordingRequest(_message.Message):
    __slots__ = ("start", "resume", "chunk", "finish")
    START_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    start: FitRecordingStart
    resume: FitRecordingResume
    chunk: InstantChunk
    finish: FitRecordingFinish
    def __init__(self, start: _Optional[_Union[FitRecordingStart, _Mapping]] = ..., resume: _Optional[_Union[FitRecordingResume, _Mapping]] = ..., chunk: _Optional[_Union[InstantChunk, _Mapping]] = ..., finish: _Optional[_Union[FitRecordingFinish, _Mapping]] = ...) -> None: ...

class FitRecordingStart(_message.Message):
    __slots__ = ("header", "options", "outputs")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    header: RecordingHeader
    options: FitOptions
    outputs: FitOutputs
    def __init__(self, header: _Optional[_Union[RecordingHeader, _Mapping]] = ..., options: _Optional[_Union[FitOptions, _Mapping]] = ..., outputs: _Optional[_Union[FitOutputs, _Mapping]] = ...) -> None: ...

class FitRecordingResume(_message.Message):
    __slots__ = ("recording_id",)
    RECORDING_ID_FIELD_NUMBER: _ClassVar[int]
    recording_id: str
    def __init__(self, recording_id: _Optional[str] = ...) -> None: ...

class InstantChunk(_message.Message):
    __slots__ = ("position", "offset", "data", "last")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    position: int
    offset: int
    data: bytes
    last: bool
    def __init__(self, position: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class FitRecordingFinish(_message.Message):
    __slots__ = ("num_instants",)
    NUM_INSTANTS_FIELD_NUMBER: _ClassVar[int]
    num_instants: int
    def __init__(self, num_instants: _Optional[int] = ...) -> None: ...

class FitRecordingResponse(_message.Message):
    __slots__ = ("accepted", "acknowledged", "progress", "result")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    accepted: FitRecordingAccepted
    acknowledged: FitRecordingAcknowledged
    progress: FitProgress
    result: FitResult
    def __init__(self, accepted: _Optional[_Union[FitRecordingAccepted, _Mapping]] = ..., acknowledged: _Optional[_Union[FitRecordingAcknowledged, _Mapping]] = ..., progress: _Optional[_Union[FitProgress, _Mapping]] = ..., result: _Optional[_Union[FitResult, _Mapping]] = ...) -> None: ...

class FitRecordingAccepted(_message.Message):
    __slots__ = ("recording_id", "next_position", "finished")
    RECORDING_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_POSITION_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    recording_id: str
    next_position: int
    finished: bool
    def __init__(self, recording_id: _Optional[str] = ..., next_position: _Optional[int] = ..., finished: _Optional[bool] = ...) -> None: ...

class FitRecordingAcknowledged(_message.Message):
    __slots__ = ("next_position",)
    NEXT_POSITION_FIELD_NUMBER: _ClassVar[int]
    next_position: int
    def __init__(self, next_position: _Optional[int] = ...) -> None: ...

class FitProgress(_message.Message):
    __slots__ = ("stage", "fraction", "step", "cost", "queue_position")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    stage: str
    fraction: float
    step: int
    cost: float
    queue_position: int
    def __init__(self, stage: _Optional[str] = ..., fraction: _Optional[float] = ..., step: _Optional[int] = ..., cost: _Optional[float] = ..., queue_position: _Optional[int] = ...) -> None: ...

class TrackRequest(_message.Message):
    __slots__ = ("start", "instant")
    START_FIELD_NUMBER: _ClassVar[int]
    INSTANT_FIELD_NUMBER: _ClassVar[int]
    start: TrackStart
    instant: Instant
    def __init__(self, start: _Optional[_Union[TrackStart, _Mapping]] = ..., instant: _Optional[_Union[Instant, _Mapping]] = ...) -> None: ...

class TrackStart(_message.Message):
    __slots__ = ("header", "model", "sex", "clothing", "person", "every_instant")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SEX_FIELD_NUMBER: _ClassVar[int]
    CLOTHING_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    EVERY_INSTANT_FIELD_NUMBER: _ClassVar[int]
    header: RecordingHeader
    model: str
    sex: Sex
    clothing: Clothing
    person: int
    every_instant: bool
    def __init__(self, header: _Optional[_Union[RecordingHeader, _Mapping]] = ..., model: _Optional[str] = ..., sex: _Optional[_Union[Sex, str]] = ..., clothing: _Optional[_Union[Clothing, str]] = ..., person: _Optional[int] = ..., every_instant: _Optional[bool] = ...) -> None: ...

class TrackResponse(_message.Message):
    __slots__ = ("estimate", "dropped", "dropped_in_all", "latency_ms", "error")
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_IN_ALL_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    estimate: TrackEstimate
    dropped: int
    dropped_in_all: int
    latency_ms: float
    error: InstantError
    def __init__(self, estimate: _Optional[_Union[TrackEstimate, _Mapping]] = ..., dropped: _Optional[int] = ..., dropped_in_all: _Optional[int] = ..., latency_ms: _Optional[float] = ..., error: _Optional[_Union[InstantError, _Mapping]] = ...) -> None: ...

class InstantError(_message.Message):
    __slots__ = ("index", "field", "description")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    index: int
    field: str
    description: str
    def __init__(self, index: _Optional[int] = ..., field: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class TrackEstimate(_message.Message):
    __slots__ = ("index", "timestamp_s", "state", "betas", "betas_sd", "pose", "pose_sd", "transl", "joints", "garments_m", "depth_residual_m", "overlap", "covered", "stop_reason", "steps", "shape_frozen", "told", "times_s", "hidden", "color_points", "behind_body")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BETAS_FIELD_NUMBER: _ClassVar[int]
    BETAS_SD_FIELD_NUMBER: _ClassVar[int]
    POSE_FIELD_NUMBER: _ClassVar[int]
    POSE_SD_FIELD_NUMBER: _ClassVar[int]
    TRANSL_FIELD_NUMBER: _ClassVar[int]
    JOINTS_FIELD_NUMBER: _ClassVar[int]
    GARMENTS_M_FIELD_NUMBER: _ClassVar[int]
    DEPTH_RESIDUAL_M_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    COVERED_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FROZEN_FIELD_NUMBER: _ClassVar[int]
    TOLD_FIELD_NUMBER: _ClassVar[int]
    TIMES_S_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    COLOR_POINTS_FIELD_NUMBER: _ClassVar[int]
    BEHIND_BODY_FIELD_NUMBER: _ClassVar[int]
    index: int
    timestamp_s: float
    state: TrackState
    betas: _containers.RepeatedScalarFieldContainer[float]
    betas_sd: _containers.RepeatedScalarFieldContainer[float]
    pose: _containers.RepeatedScalarFieldContainer[float]
    pose_sd: _containers.RepeatedScalarFieldContainer[float]
    transl: _containers.RepeatedScalarFieldContainer[float]
    joints: _containers.RepeatedScalarFieldContainer[float]
    garments_m: _containers.RepeatedCompositeFieldContainer[NamedValue]
    depth_residual_m: float
    overlap: float
    covered: float
    stop_reason: StopReason
    steps: int
    shape_frozen: bool
    told: _containers.RepeatedScalarFieldContainer[str]
    times_s: _containers.RepeatedCompositeFieldContainer[NamedValue]
    hidden: _containers.RepeatedScalarFieldContainer[str]
    color_points: int
    behind_body: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, index: _Optional[int] = ..., timestamp_s: _Optional[float] = ..., state: _Optional[_Union[TrackState, str]] = ..., betas: _Optional[_Iterable[float]] = ..., betas_sd: _Optional[_Iterable[float]] = ..., pose: _Optional[_Iterable[float]] = ..., pose_sd: _Optional[_Iterable[float]] = ..., transl: _Optional[_Iterable[float]] = ..., joints: _Optional[_Iterable[float]] = ..., garments_m: _Optional[_Iterable[_Union[NamedValue, _Mapping]]] = ..., depth_residual_m: _Optional[float] = ..., overlap: _Optional[float] = ..., covered: _Optional[float] = ..., stop_reason: _Optional[_Union[StopReason, str]] = ..., steps: _Optional[int] = ..., shape_frozen: _Optional[bool] = ..., told: _Optional[_Iterable[str]] = ..., times_s: _Optional[_Iterable[_Union[NamedValue, _Mapping]]] = ..., hidden: _Optional[_Iterable[str]] = ..., color_points: _Optional[int] = ..., behind_body: _Optional[_Iterable[str]] = ...) -> None: ...

class MeasureRequest(_message.Message):
    __slots__ = ("model", "betas", "betas_cov")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BETAS_FIELD_NUMBER: _ClassVar[int]
    BETAS_COV_FIELD_NUMBER: _ClassVar[int]
    model: str
    betas: _containers.RepeatedScalarFieldContainer[float]
    betas_cov: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, model: _Optional[str] = ..., betas: _Optional[_Iterable[float]] = ..., betas_cov: _Optional[_Iterable[float]] = ...) -> None: ...

class MeasureResponse(_message.Message):
    __slots__ = ("model", "measurements")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    model: BodyModelInfo
    measurements: _containers.RepeatedCompositeFieldContainer[Measurement]
    def __init__(self, model: _Optional[_Union[BodyModelInfo, _Mapping]] = ..., measurements: _Optional[_Iterable[_Union[Measurement, _Mapping]]] = ...) -> None: ...

class ListBodyModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBodyModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[BodyModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[BodyModelInfo, _Mapping]]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "device", "fit_workers", "fit_workers_ready", "max_streams", "queue_size", "queued", "max_message_bytes", "max_image_pixels", "max_instants", "max_recording_bytes", "upload_kept_s", "state", "fit_workers_busy", "streams")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    FIT_WORKERS_FIELD_NUMBER: _ClassVar[int]
    FIT_WORKERS_READY_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAMS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_INSTANTS_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORDING_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_KEPT_S_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FIT_WORKERS_BUSY_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    version: str
    device: str
    fit_workers: int
    fit_workers_ready: int
    max_streams: int
    queue_size: int
    queued: int
    max_message_bytes: int
    max_image_pixels: int
    max_instants: int
    max_recording_bytes: int
    upload_kept_s: float
    state: str
    fit_workers_busy: int
    streams: int
    def __init__(self, version: _Optional[str] = ..., device: _Optional[str] = ..., fit_workers: _Optional[int] = ..., fit_workers_ready: _Optional[int] = ..., max_streams: _Optional[int] = ..., queue_size: _Optional[int] = ..., queued: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_instants: _Optional[int] = ..., max_recording_bytes: _Optional[int] = ..., upload_kept_s: _Optional[float] = ..., state: _Optional[str] = ..., fit_workers_busy: _Optional[int] = ..., streams: _Optional[int] = ...) -> None: ...
