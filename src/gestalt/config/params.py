"""The whole of ``params.yaml``: top-level keys and one section per stage."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.audit import AuditSettings, GateSettings
from gestalt.config.codes import CodeSettings
from gestalt.config.distillation import DistillationSettings
from gestalt.config.evaluate import EvaluateSettings, LabelQualitySettings
from gestalt.config.features import FeatureSettings
from gestalt.config.finetune import FinetuneSettings
from gestalt.config.frames import FrameSettings, ManifestSettings
from gestalt.config.motion import MotionSettings
from gestalt.config.network import NetworkSettings, PredictSettings
from gestalt.config.optical_flow import OpticalFlowSettings
from gestalt.config.pseudo_labels import NormalizedCutSettings, PseudoLabelSettings, ThingStuffSettings
from gestalt.config.report import ReportSettings
from gestalt.config.runtime import RuntimeSettings
from gestalt.config.scenes import BenchmarkSceneSettings, SceneSettings
from gestalt.config.schema import section, setting
from gestalt.config.semantics import SemanticsSettings
from gestalt.config.tracks import TrackSettings
from gestalt.config.training import GuidedSettings, SelfTrainingSettings


@dataclass(frozen=True)
class Params:
    """Every value of the current experiment."""

    preset: str = setting("name of the composition these values came from; names runs and reports")
    seed: int = setting("the one seed; every random choice derives from it", low=0)
    batches: list[str] = setting("deliveries of video, one folder each under data/raw")
    fit_batches: list[str] = setting("the batches that features and semantics are fitted on")
    rendered_batches: list[str] = setting("batches that the stage `scenes` renders")
    truth_batches: list[str] = setting("batches with ground truth, on which label quality is measured")
    optical_flow_batches: list[str] = setting(
        "batches that a network of displacements is trained on, each by itself; motion.raft.weights names one"
    )
    normalized_cut_batches: list[str] = setting("batches that normalised cut proposes masks for (a baseline)")
    benchmarks: list[str] = setting("evaluation sets under data/benchmarks")
    rendered_benchmarks: list[str] = setting("evaluation sets that the stage `benchmark_scenes` renders")
    frames: FrameSettings = section(
        FrameSettings, "size and valid region of the images that labels are made at"
    )
    scenes: SceneSettings = section(SceneSettings, "the rendered stereo video")
    benchmark_scenes: BenchmarkSceneSettings = section(BenchmarkSceneSettings, "the rendered evaluation sets")
    manifest: ManifestSettings = section(ManifestSettings, "finding and checking stereo pairs")
    optical_flow: OpticalFlowSettings = section(
        OpticalFlowSettings, "training of the network of optical flow and disparity"
    )
    motion: MotionSettings = section(MotionSettings, "moving objects from stereo pairs")
    features: FeatureSettings = section(FeatureSettings, "self-supervised dense features")
    distillation: DistillationSettings = section(
        DistillationSettings, "training of the small ViT, read with features.source distillation"
    )
    semantics: SemanticsSettings = section(SemanticsSettings, "pseudo-classes from features")
    codes: CodeSettings = section(CodeSettings, "codes from features, read with semantics.method codes")
    normalized_cut: NormalizedCutSettings = section(
        NormalizedCutSettings, "masks by normalised cut (a baseline)"
    )
    pseudo_labels: PseudoLabelSettings = section(PseudoLabelSettings, "fusion of proposals and semantics")
    thing_stuff: ThingStuffSettings = section(ThingStuffSettings, "the thing-stuff split")
    audit: AuditSettings = section(AuditSettings, "checks of the label table")
    gate: GateSettings = section(GateSettings, "what stops the pipeline")
    network: NetworkSettings = section(NetworkSettings, "the panoptic network")
    guided: GuidedSettings = section(GuidedSettings, "training on pseudo-labels")
    self_training: SelfTrainingSettings = section(SelfTrainingSettings, "training on own predictions")
    finetune: FinetuneSettings = section(
        FinetuneSettings, "fine-tuning on few images that people labelled: a command, no part of the pipeline"
    )
    predict: PredictSettings = section(PredictSettings, "inference")
    tracks: TrackSettings = section(TrackSettings, "ids of objects over the frames of a video")
    evaluate: EvaluateSettings = section(EvaluateSettings, "evaluation")
    label_quality: LabelQualitySettings = section(LabelQualitySettings, "pseudo-labels against truth")
    report: ReportSettings = section(ReportSettings, "the report page")
    runtime: RuntimeSettings = section(
        RuntimeSettings, "where the work runs; threads and device may change the last bits of a network"
    )
