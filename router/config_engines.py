"""The configuration of engines: where students are served."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from router.policy_fields import Seconds, Strict

# What Retort tells vLLM itself, and what would undo it: the engine tells thinking and tools from the text, in one way
# for every runtime; students are swapped by new servers or new adapters, never by sleep.
_OURS = {
    "--model": "it is the student",
    "--served-model-name": "it is the version",
    "--host": "servers listen on loopback",
    "--port": "a free one is taken",
    "--config": "a file would set what is set here; write `arguments`",
    "--uds": "servers listen on loopback",
    "--root-path": "servers listen on loopback",
    "--api-key": "servers listen on loopback, for this engine alone",
    "--max-num-seqs": "set max_num_seqs",
    "--max-model-len": "set max_model_len",
    "--enable-prefix-caching": "set prefix_caching",
    "--no-enable-prefix-caching": "set prefix_caching",
    "--tensor-parallel-size": "set tensor_parallel",
    "-tp": "set tensor_parallel",
    "-q": "the artefact says how it is quantized",
    "--quantization": "the artefact says how it is quantized",
    "--generation-config": "requests say how to sample",
    "--logprobs-mode": "the confidence is computed from raw_logprobs",
    "--max-logprobs": "it is what requests may ask for",
    "--enable-lora": "set adapters_on",
    "--max-loras": "it follows from max_loaded",
    "--max-cpu-loras": "it follows from max_loaded",
    "--lora-modules": "adapters are loaded when they are wanted",
    "--structured-outputs-config": "forms are enforced by guidance",
    "--reasoning-parser": "the engine tells thinking from the text",
    "--tool-call-parser": "the engine tells calls from the text",
    "--enable-auto-tool-choice": "the engine tells calls from the text",
    "--enable-sleep-mode": "waking up corrupts weights; versions have servers of their own",
    "--enable-log-requests": "prompts are never logged",
    "--enable-log-outputs": "answers are never logged",
    "--trust-remote-code": "an artefact holds no code",
}

BESIDE_LIVE = 2  # versions that an engine holds beside the live ones: one under test, and the last that ended


class VllmSettings(Strict):
    """`python`: of the environment that scripts/install_vllm makes. `urls`: servers that are there, and not launched:
    each serves one version under its name, or runs `adapters_on`. `adapters_on`: a base model's folder; students come
    as LoRA adapters on it. `arguments`: further ones, for each server."""

    python: str = ".vllm/bin/python"
    urls: tuple[str, ...] = ()
    adapters_on: str | None = None
    max_num_seqs: int = Field(16, gt=0)
    max_model_len: int | None = Field(None, gt=0)
    prefix_caching: bool = True
    tensor_parallel: int = Field(1, gt=0)
    arguments: tuple[str, ...] = ()

    @field_validator("urls")
    @classmethod
    def _http(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not url.startswith(("http://", "https://")) or url.rstrip("/").endswith("/v1"):
                raise ValueError(f"{url!r}: write the server's address without /v1, for example http://vllm-0:8000")
        if len({url.rstrip("/") for url in value}) < len(value):
            raise ValueError("holds an address twice")
        return tuple(url.rstrip("/") for url in value)

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for argument in value:
            name = argument.partition("=")[0].partition(".")[0].replace("_", "-")
            # vLLM takes the beginning of a name, too.
            for ours, why in _OURS.items():
                if name == ours or (name.startswith("--") and len(name) > 3 and ours.startswith(name)):
                    raise ValueError(f"{argument!r} can't be given: {why}")
        if value and not value[0].startswith("-"):
            raise ValueError(f"{value[0]!r} is no argument; write them as on a command line: [--dtype, bfloat16]")
        return value

    @model_validator(mode="after")
    def _found_or_launched(self) -> "VllmSettings":
        defaults = {name: field.default for name, field in VllmSettings.model_fields.items()}
        given = [name for name, default in defaults.items() if getattr(self, name) != default]
        of_launched = set(given) - {"urls", "adapters_on"}
        if self.urls and of_launched:
            told = ", ".join(sorted(of_launched))
            raise ValueError(f"urls names servers that run already; {told} can only be given to launched ones")
        return self


class EngineSettings(Strict):
    """Where students are served. `advertise`: the address that gateways use, if not the one listened on.
    `load_timeout`: what the start of a version may take, and what its probes may. `memory_gb`: what all loaded versions
    may take together; None asks nobody. `threads`: of each version; by default 2, and with vLLM on a CPU half of its
    cores. `kv_cache_gb`: what keys and values of one version's
    requests may take; on GPUs the engine's servers share 90% of the memory instead."""

    runtime: Literal["onnxruntime", "vllm"] = "onnxruntime"
    vllm: VllmSettings = VllmSettings()
    listen: str = "127.0.0.1:0"
    advertise: str | None = None
    max_loaded: int = Field(1 + BESIDE_LIVE, gt=0, description="by default two more than the routes that it serves")
    load_timeout: Seconds = Field(300.0, gt=0)
    memory_gb: float | None = Field(None, gt=0)
    kv_cache_gb: float = Field(1.0, gt=0)
    threads: int | None = Field(None, gt=0)
    queue: int = Field(64, gt=0)

    def serving(self, routes: int, key: str) -> "EngineSettings":
        """With room for what so many routes' students need: a live version of each, a test and what ended last. Raises
        ValueError, which names the `key` of this engine, where `max_loaded` was given and is too small."""
        if "max_loaded" not in self.model_fields_set:
            return self.model_copy(update={"max_loaded": routes + BESIDE_LIVE})
        if self.max_loaded < routes:
            raise ValueError(
                f"{key}.max_loaded: {self.max_loaded} can't hold the live versions of the {routes} routes whose "
                f"students it serves; write {routes + BESIDE_LIVE}, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_runtime(self) -> "EngineSettings":
        if self.runtime != "vllm" and self.vllm != VllmSettings():
            raise ValueError(f"vllm: is for an engine with runtime: vllm; this one's is {self.runtime}")
        if self.runtime == "vllm" and not self.kv_cache_gb.is_integer():
            raise ValueError(f"kv_cache_gb: {self.kv_cache_gb:g} can't be given to vLLM, which takes whole GB; write 1")
        return self
