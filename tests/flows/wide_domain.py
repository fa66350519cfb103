"""A domain over all classes that can be executed, independent of the miniature's."""

from typing import Any

from flowsmith.flows import Domain


def wide_content(**changes: Any) -> dict[str, Any]:
    """Return the domain as plain objects; ``changes`` replace whole settings."""
    return {
        "classes": {
            "SaveImage": 1, "VAEDecode": 2, "VAEEncode": 1, "ImageScaleBy": 1, "ImageSharpen": 1,
            "ImageUpscaleWithModel": 2, "UpscaleModelLoader": 2, "KSampler": 3, "LatentUpscaleBy": 1,
            "EmptyLatentImage": 1, "CheckpointLoaderSimple": 2, "VAELoader": 1, "LoraLoader": 1,
            "CLIPTextEncode": 4, "RescaleCFG": 2, "CLIPSetLastLayer": 1,
            "KSamplerAdvanced": 4,
        },
        "values": {
            "CheckpointLoaderSimple.ckpt_name": ["a", "b"],
            "LoraLoader.lora_name": ["l.safetensors"],
            "LoraLoader.strength_model": [0.5, 1.0],
            "LoraLoader.strength_clip": [1.0],
            "RescaleCFG.multiplier": [0.3, 0.7],
            "CLIPSetLastLayer.stop_at_clip_layer": [-2],
            "VAELoader.vae_name": ["v", "w.safetensors"],
            "UpscaleModelLoader.model_name": ["x2.safetensors", "x3.safetensors"],
            "EmptyLatentImage.width": [48, 64],
            "EmptyLatentImage.height": [48, 64],
            "EmptyLatentImage.batch_size": [1],
            "KSampler.steps": [4, 8, 20],
            "KSampler.cfg": [1.0, 4.0],
            "KSampler.sampler_name": ["euler", "dpmpp_2m"],
            "KSampler.scheduler": ["normal", "karras"],
            "KSampler.denoise": [0.3, 0.6, 1.0],
            "KSamplerAdvanced.add_noise": ["enable", "disable"],
            "KSamplerAdvanced.steps": [4, 8, 20],
            "KSamplerAdvanced.cfg": [1.0, 4.0],
            "KSamplerAdvanced.sampler_name": ["euler", "dpmpp_2m"],
            "KSamplerAdvanced.scheduler": ["normal", "karras"],
            "KSamplerAdvanced.start_at_step": [0, 4, 10],
            "KSamplerAdvanced.end_at_step": [4, 10, 10000],
            "KSamplerAdvanced.return_with_leftover_noise": ["disable", "enable"],
            "LatentUpscaleBy.upscale_method": ["bislerp"],
            "LatentUpscaleBy.scale_by": [1.5, 2.0],
            "ImageScaleBy.upscale_method": ["area", "bicubic"],
            "ImageScaleBy.scale_by": [1.5, 2.0],
            "ImageSharpen.sharpen_radius": [1],
            "ImageSharpen.sigma": [0.5, 1.0],
            "ImageSharpen.alpha": [0.05, 0.1, 1.0],
            "SaveImage.filename_prefix": ["flowsmith"],
        },
        "texts": {"positive": ["{prompt}", "{prompt}, sharp"], "negative": ["", "blurry"]},
        "max_pixels": 256 * 256,
        "max_pixel_steps": 64 * 64 * 200,
        "upscale_factors": {"x2.safetensors": 2, "x3.safetensors": 3},
        **changes,
    }  # fmt: skip


def wide_domain(**changes: Any) -> Domain:
    """Return the domain; see `wide_content`."""
    return Domain.from_json(wide_content(**changes))
