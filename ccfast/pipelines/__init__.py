"""Calls in other libraries' manner: ``RestorationPipeline`` is used as the pipelines of diffusers are."""

from .restoration_pipeline import RestorationPipeline, RestorationPipelineOutput

__all__ = ["RestorationPipeline", "RestorationPipelineOutput"]
