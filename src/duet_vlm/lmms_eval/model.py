"""The model `duet_hf` of lmms-eval: a transformers model with its visual tokens compressed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.protocol import ChatMessages
from lmms_eval.utils import Collator
from tqdm import tqdm
from transformers import LogitsProcessorList

from ..applying import apply
from ..config.arguments import tokenizer_of
from ..config.budget_rule import SAVED, Budget
from ..config.values import is_whole
from ..errors import DuetError, shown
from ..evaluation.runs import saved
from ..families import is_visual
from ..host import output_cache
from ..inputs.checkpoints import read_config, read_model
from ..inputs.devices import check_device, check_dtype
from ..presets import DuetConfig, preset
from .conversation import ChatQuestion, Reader
from .generation import cut, generation_settings
from .measures import FirstTokenClock, Measures, measures_of, summary

SETTINGS = {field.name for field in fields(DuetConfig)} - {"dominant", "contextual", "drops"}


class DuetHF(lmms):
    """Any supported model by id or folder, compressed by any method at any budget; `method=none` leaves it stock."""

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        method: str | None = None,
        tokens: float | None = None,
        keep: float | None = None,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int | str = 1,
        max_frames: int | None = None,
        system_prompt: str | None = None,
        max_batch_size: int | None = None,
        **changes: Any,
    ) -> None:
        """Load and compress.

        Args:
            pretrained: hub id, a folder written by `save_pretrained`, or "demo" for the demonstration model.
            method: a name that `DuetConfig.preset` knows, or "saved" for the settings that the model's config brings;
                by default "saved" where it brings some and nothing else is said, else "duet".
            tokens, keep: the budget, as in `DuetConfig.preset`; "none" and "saved" take neither.
            dtype: "auto", "float32", "bfloat16" or "float16".
            device: torch device; by default the fastest one, under `accelerate launch` the one of each process.
            batch_size: questions answered together.
            max_frames: the most frames of a video to show; by default what the model's files or its family say.
            system_prompt: text, or a file that holds it, put before every conversation.
            max_batch_size: lmms-eval passes it to every model; of no effect.
            changes: further fields of `DuetConfig`, for example `query=last`.

        Raises:
            ValueError: an argument that is unknown or does not fit, a model that cannot be read or is not supported.
        """
        super().__init__()
        unknown = sorted(changes.keys() - SETTINGS)
        if unknown:
            raise DuetError(
                f"model argument {unknown[0]!r} is unknown: choose of pretrained, method, tokens, keep, dtype, device, "
                f"max_frames, system_prompt, {', '.join(sorted(SETTINGS))}."
            )
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise DuetError(f"batch size {batch_size!r} is not possible with duet_hf: give a whole number from 1.")
        if method is not None:
            Budget.parse(method, tokens, keep)
        if max_frames is not None and not is_whole(max_frames, 1):
            raise DuetError(f"max_frames {shown(max_frames)} shows the model nothing: give 1 or more.")
        self.batch_size = int(batch_size)
        self.system_prompt = self._resolve_system_prompt(system_prompt)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = torch.device(self.accelerator.device if self._world_size > 1 else check_device(device))
        check_dtype(dtype)
        model_config, said = read_config(pretrained), changes or not (tokens is None and keep is None)
        if method is None:
            method = "duet" if said or getattr(model_config, "duet", None) is None else SAVED
        if method == SAVED and changes:
            raise DuetError(f"method 'saved' brings its fields: leave out {', '.join(changes)}, or choose another.")
        if method == SAVED:
            config = saved(model_config).config
        else:
            config = preset(method, model=model_config, tokens=tokens, keep=keep, **changes)
        self.model, self.processor = read_model(pretrained, dtype, str(self.device))
        self.tokenizer = tokenizer_of(self.processor)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.reader = Reader(self.model.config, self.processor, max_frames)
        self.handle = apply(self.model, config, tokenizer=self.processor)
        self.warm = False

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer every request; tokens, KV bytes and prefill time go into each result and into the run's throughput."""
        if not requests:
            return []
        # (context, doc_to_messages, settings, document, task, split); a batch is of one task with one set of settings
        order = Collator(
            [request.args for request in requests], sort_fn=lambda a: a[3], group_fn=lambda a: a[2] | {"task": a[4]},
            grouping=True,
        )  # fmt: skip
        texts: list[str] = []
        measures: list[Measures] = []
        tasks: list[str] = []
        seconds = 0.0
        with tqdm(total=len(requests), disable=self.rank != 0, desc="Model responding") as bar:
            for chunk in order.get_batched(n=self.batch_size):
                conversations = [self.conversation(arguments) for arguments in chunk]
                answers, measured, took = self.answer(conversations, chunk[0][2])
                seconds += took
                texts, measures = texts + answers, measures + measured
                for arguments, answer in zip(chunk, answers, strict=True):
                    tasks.append(arguments[4])
                    self.cache_hook.add_partial("generate_until", (arguments[0], arguments[2]), answer)
                bar.update(len(chunk))
        written = sum(m.output_tokens or 0 for m in measures)
        log_metrics(seconds, written, written / seconds, summary(tasks, measures))
        results = [GenerationResult(text, measured) for text, measured in zip(texts, measures, strict=True)]
        return list(order.get_original(results))

    def conversation(self, arguments: tuple[Any, ...]) -> ChatQuestion:
        """One request's document, with its images read."""
        _, doc_to_messages, _, document, task, split = arguments
        messages = doc_to_messages(self.task_dict[task][split][document])
        messages = self._apply_system_prompt(messages, self.system_prompt or "")
        return self.reader.read(ChatMessages(messages=messages).model_dump()["messages"])

    @torch.inference_mode()
    def answer(
        self, conversations: list[ChatQuestion], task_settings: dict[str, Any]
    ) -> tuple[list[str], list[Measures], float]:
        """Answer a batch with one set of generation settings: answers, measures, and the seconds of `generate`."""
        inputs = self.reader.encode(conversations).to(self.device, self.model.dtype)
        generation, until = generation_settings(task_settings)
        generation["pad_token_id"] = self.tokenizer.pad_token_id
        if not self.warm:  # the first call on a device costs more than any other
            self.model.generate(**inputs, **generation | {"max_new_tokens": 1})
            self.warm = True
        clock = FirstTokenClock(self.device)
        out = self.model.generate(
            **inputs, **generation, logits_processor=LogitsProcessorList([clock]), return_dict_in_generate=True
        )
        seconds = clock.elapsed()
        visual = self.visual(inputs["input_ids"])
        # a prompt without visual tokens leaves no trace, only the one of the prompt before
        trace = self.handle.trace if bool(visual.any()) else None
        measures = measures_of(inputs, visual, trace, output_cache(out), clock)
        written = out.sequences[:, inputs["input_ids"].shape[1] :]
        for row, measured in zip(written, measures, strict=True):
            measured.output_tokens = int((row != self.tokenizer.pad_token_id).sum())
        answers = self.processor.batch_decode(written, skip_special_tokens=True)
        return [cut(answer, until) for answer in answers], measures, seconds

    def visual(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, n) where the prompts have visual tokens."""
        return is_visual(self.model.config, ids)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refused: lmms-eval hands chat models nothing but questions to generate for."""
        raise NotImplementedError("duet_hf scores no given answers: choose tasks with output_type generate_until.")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Refused."""
        raise NotImplementedError("duet_hf answers single questions: choose tasks with output_type generate_until.")

    def clean(self) -> None:
        """Take the compression off and free the model, as lmms-eval asks for before it scores."""
        self.handle.remove()
        super().clean()
