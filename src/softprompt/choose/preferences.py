"""Rules that speak for and against: what was measured, by whom, and what that does not show."""

from __future__ import annotations

from .needs import Needs
from .rule import (
    AFTER,
    ALL,
    BEFORE,
    FEW_SHOT,
    GENERATED,
    LORA,
    MULTITASK,
    PROMPTS,
    SOFT,
    TABLES,
    TRAINED,
    UNTRAINED,
    Evidence,
    Rule,
    by_construction,
    said,
)

LITTLE, ENOUGH, LONG, MANY_TASKS, MANY_LABELS = 64, 200, 200, 50, 20  # rows, rows, tokens, prompts, labels
SMALL_MODEL = 1_000_000_000  # weights
QUALITY = "python -m benchmarks.quality --data DIR"
SST2 = "docs/results.md, SST-2, 1,000 training sentences"
BOARD = "Hugging Face PEFT, method_comparison/MetaMathQA (Llama-3.2-3B, GSM8K)"
ONE_SET = "one set of short sentences, one model of 135M, three seeds"


def _labelled(needs: Needs) -> bool:
    return needs.kind in ("classification", "choice")


def _writes(needs: Needs) -> bool:
    return needs.kind == "generation"


#: What speaks for and against.
PREFERENCES = (
    Rule(
        "training beats telling",
        lambda n: n.rows >= ENOUGH,
        f"{ENOUGH} rows or more",
        UNTRAINED,
        "with this many rows every trained method was well ahead of the plain model",
        Evidence(
            SST2 + "; the demo's table there",
            "accuracy 77.8 zero-shot and 73.4 with 8 rows shown, 85.9 to 87.7 trained; demo, "
            "perplexity: 18.3 "
            "and 12.3, 9.7 to 10.7 trained",
            ONE_SET + "; not tried with a larger model",
            QUALITY,
        ),
        -3,
    ),
    Rule(
        "few rows, shown instead",
        lambda n: n.rows < LITTLE,
        f"fewer than {LITTLE} rows",
        UNTRAINED,
        "it needs no training rows to speak of",
        by_construction("nothing is trained, so nothing overfits", "says nothing about how good it is"),
        1,
    ),
    Rule(
        "few rows, started from them",
        lambda n: n.rows < LITTLE,
        f"fewer than {LITTLE} rows",
        TABLES,
        "a prefix can start as the keys and values of the rows themselves",
        Evidence(
            "CT-KV, arXiv 2507.04221",
            "BBH 57.9, against 52.7 for a plain prefix and 51.7 for LoRA; without its masking and "
            "dropout 51.4",
            "that figure needs leave-one-out masking and token dropout, which init=context alone does not do",
        ),
        1,
    ),
    Rule(
        "shown rows hurt a small classifier",
        lambda n: _labelled(n) and n.weights < SMALL_MODEL,
        "labels or choices, and a model under 1 billion weights",
        (FEW_SHOT,),
        "showing rows made a small model worse at labels",
        Evidence(SST2, "8-shot 73.4, zero-shot 77.8", "one set, one model, one draw of the 8 rows", QUALITY),
        -1,
    ),
    Rule(
        "shown rows help a writer",
        _writes,
        "free text",
        (FEW_SHOT,),
        "shown rows tell the plain model the form of the answer",
        Evidence(
            "docs/results.md, The demo",
            "3-shot against zero-shot: perplexity 12.3 and 18.3, chrF 45.1 and 35.8",
            "120 test rows, one model",
            "make demo",
        ),
        1,
    ),
    Rule(
        "no prompt beats a prefix on labels",
        _labelled,
        "labels or choices",
        (*PROMPTS, *TABLES),
        "no difference between prompt and prefix was shown on labels",
        Evidence(
            SST2,
            "prompt-tuning 86.5 ± 0.7 after and 86.5 ± 0.9 before, prefix-tuning 87.6 ± 1.0 and 87.7 "
            "± 0.7; the "
            "interval of one run is ± 2.2 points",
            ONE_SET,
            QUALITY,
        ),
        0,
    ),
    Rule(
        "a prefix writes better",
        _writes,
        "free text",
        TABLES,
        "in writing, keys and values in every layer did better than vectors at the input alone",
        Evidence(
            "Li & Liang 2021, E2E with GPT-2 medium; " + BOARD,
            "BLEU 69.7 with a prefix, 62.2 with embeddings only; GSM8K .416 with a prefix of 50, "
            ".343 with a prompt "
            "of 200",
            "GSM8K is one seed with a standard error of 1.4 points; lengths, rates and starts differ",
        ),
        2,
    ),
    Rule(
        "ahead of the input writes a little better",
        _writes,
        "free text",
        ("prefix-tuning/before",),
        "ahead of the input a prefix wrote slightly better than behind it",
        Evidence(
            "Li & Liang 2021, E2E with GPT-2 medium",
            "BLEU 69.7 for a prefix, 67.9, 67.2 and 66.7 for an infix of 1, 10 and 20",
            "one set; on SST-2 we saw none (87.6 after, 87.7 before)",
        ),
        1,
    ),
    Rule(
        "made from the input, for writing",
        lambda n: _writes(n) and n.rows >= ENOUGH,
        f"free text, and {ENOUGH} rows or more",
        GENERATED,
        "what is made from the input helps where the answer's form depends on it",
        Evidence(
            "IDP; docs/results.md, The demo",
            "0.5 M parameters: ROUGE-Lsum 71.7 for one made from the instance, 64.5 for a static "
            "one; our demo: "
            "perplexity 9.7 (8.1–11.7) against 10.2 (8.5–12.3)",
            "the intervals of our demo overlap",
            "make demo",
        ),
        1,
    ),
    Rule(
        "a generator wants rows and steps",
        lambda n: n.rows < ENOUGH,
        f"fewer than {ENOUGH} rows",
        GENERATED,
        "a generator has a million numbers to train and wants a low rate and time",
        Evidence(
            "docs/results.md, What decides",
            "SST-2: 82.0 after 200 steps, 85.6 after 400, and 52.8 at a rate of 1e-2",
            "one seed, 1,000 rows; with how few rows it fails was not measured",
            QUALITY + " --only generated-prefix/after",
        ),
        -2,
    ),
    Rule(
        "behind the input trains faster",
        lambda n: n.model_kind == "decoder" and "cache" not in n.limits,
        "the model can keep its inputs' keys and values",
        AFTER,
        "the input is computed once and kept, so a step runs only prompt and answer",
        Evidence(
            SST2 + "; docs/architecture.md, The plan",
            "training seconds: 95 after and 272 before for prompts, 50 and 181 for prefixes",
            "the runs before had half the batch and fewer steps; a busy machine",
            QUALITY,
        ),
        1,
    ),
    Rule(
        "long inputs are computed once",
        lambda n: n.model_kind == "decoder" and "cache" not in n.limits and n.input_tokens >= LONG,
        f"inputs of {LONG} tokens or more, which the model can keep",
        AFTER,
        "the longer the input, the more is saved by computing it once",
        by_construction("a cached step costs prompt and target tokens alone, whatever the input's length"),
        1,
    ),
    Rule(
        "everything runs in every step",
        lambda n: n.input_tokens >= LONG,
        f"inputs of {LONG} tokens or more",
        (*BEFORE, LORA),
        "the whole input runs forward and backward in every step",
        by_construction(
            "what is trained stands ahead of the input, or is the base itself (docs/architecture.md)"
        ),
        -1,
    ),
    Rule(
        "unseen inputs: measured",
        said("unseen"),
        "--unseen",
        (*TABLES, LORA),
        "on unseen categories a prefix came near LoRA, and far above full fine-tuning",
        Evidence(
            "published figures for WebNLG, unseen categories; docs/results.md, WebNLG",
            "BLEU 44.1 to 45.6 for a prefix, 46.7 for LoRA, 27.7 to 30.4 for full fine-tuning; ours, "
            "a prefix: seen "
            "36.0, unseen 27.8",
            "prompts were not in that comparison; no clean win of prefix over prompt out of domain was found",
            "python -m benchmarks.webnlg --data DIR --steps 1200",
        ),
        1,
    ),
    Rule(
        "unseen inputs: not known",
        said("unseen"),
        "--unseen",
        SOFT,
        "no clean win of prefix over prompt on unseen inputs is known: compare on held-out kinds of yours",
        Evidence(
            "a search of the literature",
            "no clean win of prefix over prompt out of domain was found",
            "absence of evidence",
        ),
        0,
    ),
    Rule(
        "many prompts to keep, small",
        lambda n: n.tasks >= MANY_TASKS,
        f"{MANY_TASKS} prompts or more",
        (*PROMPTS, "p-tuning/after"),
        "a prompt takes kilobytes",
        Evidence(
            SST2,
            "19 kB (8 vectors) and 37 kB (16) a prompt, 743 kB a prefix, 1,858 kB LoRA, 4,084 kB a "
            "generated prefix",
            "of a model of 135M; a generator is shared by the prompts of its table",
            QUALITY,
        ),
        1,
    ),
    Rule(
        "many prompts to keep, large",
        lambda n: n.tasks >= MANY_TASKS,
        f"{MANY_TASKS} prompts or more",
        (LORA,),
        "each task takes megabytes, and a switch of weights",
        Evidence(SST2, "1,858 kB each, a hundred times a prompt", "of a model of 135M, rank 8", QUALITY),
        -2,
    ),
    Rule(
        "many prompts share",
        lambda n: n.prompts >= 2 and n.tasks >= MANY_TASKS,
        f"the rows name several prompts, and there will be {MANY_TASKS} or more",
        (MULTITASK,),
        "each prompt after the shared one takes a few kilobytes",
        by_construction(
            "length + hidden size numbers a prompt at rank 1, instead of length times hidden size"
        ),
        2,
    ),
    Rule(
        "prompts with few rows of their own share",
        lambda n: n.prompts >= 2 and n.rows_a_prompt < LITTLE,
        f"several prompts, with fewer than {LITTLE} rows each",
        (MULTITASK,),
        "what the prompts have in common is learned from all rows",
        by_construction(
            "the shared part gets the gradient of every row", "how much that helps was not measured here"
        ),
        1,
    ),
    Rule(
        "a prefix adds no positions",
        said("latency"),
        "--latency",
        TABLES,
        "its columns are read in attention only; soft tokens pass through every layer",
        Evidence(
            BOARD + "; PEFT-Bench",
            "length 200: 41 % more training time for prompts; 20 % more FLOPs and 54 % more memory",
            "of training; a prompt ahead of the input can be served as a prefix (equal to 5e-5)",
        ),
        1,
    ),
    Rule(
        "the plain model is too slow",
        lambda n: n.said.latency is not None and (n.input_seconds or 0.0) > n.said.latency,
        "--latency, and one pass over a median input takes longer on this machine",
        ALL,
        "even the plain model takes longer than that here: a smaller model, shorter inputs or a "
        "faster machine",
        by_construction("one pass over a median input, timed here", "as busy as the machine is now"),
        0,
    ),
    Rule(
        "shown rows are read every time",
        said("latency"),
        "--latency",
        (FEW_SHOT,),
        "every request reads the shown rows again",
        by_construction(
            "demonstrations are tokens of the input", "a server that keeps shared beginnings saves most of it"
        ),
        -1,
    ),
    Rule(
        "LoRA on hard writing",
        lambda n: _writes(n) and n.rows >= ENOUGH,
        f"free text, and {ENOUGH} rows or more",
        (LORA,),
        "where the task is hard and rows are many, LoRA did better than any prompt or prefix",
        Evidence(
            BOARD,
            "LoRA .478, the best prefix .416, the best prompt .343",
            "one task (mathematics), one seed with a standard error of 1.4 points, 20,000 rows read",
        ),
        2,
    ),
    Rule(
        "LoRA on labels",
        _labelled,
        "labels or choices",
        (LORA,),
        "on labels LoRA was not shown to differ from prompts and prefixes",
        Evidence(
            SST2 + "; RoBERTa-base, SST-2",
            "LoRA 85.9 ± 0.9, prompts 86.5, prefixes 87.6; RoBERTa-base: 90.4 LoRA, 89.3 prompt",
            ONE_SET,
            QUALITY,
        ),
        0,
    ),
    Rule(
        "much to train for as much",
        lambda n: True,
        "always",
        ("p-tuning/after",),
        "its network has far more to train than a prompt, and was not shown to be better",
        Evidence(
            BOARD,
            "P-tuning .350 with 28.4 M numbers trained, prompt tuning .343 with 0.6 M",
            "one seed, standard error 1.4 points; its artifact is the smaller, since the network is "
            "discarded",
        ),
        -1,
    ),
    Rule(
        "words counted may do",
        lambda n: n.kind == "classification" and n.rows >= ENOUGH,
        f"labels, and {ENOUGH} rows or more",
        TRAINED,
        "hold it against TF-IDF and logistic regression, which needs no model at all",
        Evidence(
            "TF-IDF and logistic regression, six public sets",
            "SST-2 .81, AG News .87, Banking77 .89, CLINC150 .92, MNLI .39, QQP .72",
            "how many rows it learned from differs by set; softprompt inspect fits it to yours",
        ),
        0,
    ),
    Rule(
        "many labels, many candidates",
        lambda n: len(n.labels) >= MANY_LABELS,
        f"{MANY_LABELS} labels or more",
        TRAINED,
        "each label is scored as words, so a row costs as many passes over labels as there are; a head "
        "(task.head=true) scores all in one",
        by_construction("see docs/tasks.md", "which is better was not measured"),
        0,
    ),
    Rule(
        "control is not known",
        lambda n: n.tasks >= 2,
        "several prompts",
        TRAINED,
        "which method lets the prompt decide most: no measurement was found",
        Evidence("a search of the literature", "no measurement found", "absence of evidence"),
        0,
    ),
)
