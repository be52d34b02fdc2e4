"""Rules on quality say which methods scored better, where that was measured, and what it does not show."""

from __future__ import annotations

from ..requirements import Needs
from .base import (
    BENCHMARK,
    BOARD,
    FEW_SHOT,
    GENERATED,
    LITTLE,
    LORA,
    PROMPTS,
    SOFT,
    SST2,
    TABLES,
    TRAINED,
    UNTRAINED,
    Evidence,
    Rule,
    by_construction,
)

ENOUGH = 200  # rows
SMALL_MODEL = 1_000_000_000  # weights
NINE = "docs/nine-comparisons.md"
P_TUNING = "p-tuning/after"


def _nine(figures: str, sets: int = 0, *, also: str = "", limits: str = "") -> Evidence:
    """Return evidence of this project's nine comparisons; `sets` counts the data sets of `also` too."""
    reservations = "one model of 135M, 150 to 200 test rows, three seeds, 60 to 100 steps" + limits
    return Evidence(NINE + also, figures, reservations, "python -m benchmarks.comparisons.claims", sets)


def _labelled(needs: Needs) -> bool:
    return needs.kind in ("classification", "choice")


def _answers(needs: Needs) -> bool:
    """Hold where something is answered: what was measured on answers says nothing about vectors of texts."""
    return needs.kind != "embedding"


def _writes(needs: Needs) -> bool:
    return needs.kind == "generation"


QUALITY_RULES = (
    Rule(
        "training beats telling",
        lambda n: _answers(n) and n.rows >= ENOUGH,
        f"{ENOUGH} rows or more, no embeddings",
        UNTRAINED,
        "with this many rows every trained method was well ahead of the plain model",
        Evidence(
            SST2 + "; the demo's table there",
            "accuracy 77.8 zero-shot and 73.4 with 8 rows shown, 85.9 to 87.7 trained; demo, perplexity: "
            "18.3 and 12.3, 9.7 to 10.7 trained",
            "one set of short sentences, one model of 135M, three seeds; not tried with a larger model; with "
            "300 rows and few steps (docs/nine-comparisons.md) rows shown did as well on sst2 and rte",
            BENCHMARK,
            sets=2,
        ),
        under=TRAINED,
    ),
    Rule(
        "few rows, shown instead",
        lambda n: n.rows < LITTLE,
        f"fewer than {LITTLE} rows",
        UNTRAINED,
        "it needs no training rows, so nothing overfits",
        by_construction(
            "nothing is trained; a network that makes the prompt has a million numbers to train",
            "says nothing about how good it is",
        ),
        over=(*GENERATED, P_TUNING),
    ),
    Rule(
        "few rows, started from them",
        lambda n: _answers(n) and n.rows < LITTLE,
        f"fewer than {LITTLE} rows, no embeddings",
        TABLES,
        "a prefix can start as the keys and values of the rows themselves",
        Evidence(
            "CT-KV, arXiv 2507.04221",
            "BBH 57.9, against 52.7 for a plain prefix and 51.7 for LoRA; without its masking and dropout "
            "51.4",
            "that figure needs leave-one-out masking and token dropout, which init=context alone does not do",
            sets=1,
        ),
        over=(LORA,),
    ),
    Rule(
        "shown rows help or hurt a small classifier",
        lambda n: _labelled(n) and n.weights < SMALL_MODEL,
        "labels or choices, and a model under 1 billion weights",
        (FEW_SHOT,),
        "showing rows made a small model better at some labels and much worse at others: try it",
        _nine(
            "few-shot against zero-shot: ag_news 0.32 and 0.673, qqp 0.407 and 0.613; sst2 0.845 and 0.81, "
            "clinc150 0.335 and 0.24, mrpc 0.48 and 0.347, rte 0.573 and 0.433",
            limits="; one draw of four rows each",
        ),
    ),
    Rule(
        "shown rows help a writer",
        _writes,
        "free text",
        (FEW_SHOT,),
        "shown rows tell the plain model the form of the answer",
        _nine(
            "perplexity, few-shot against zero-shot: bible_style 4.09 and 4.37, natural_instructions 16.1 "
            "and 24.5, webnlg 5.7 and 7.82; everything trained was better still",
            3,
        ),
        over=("zero-shot",),
    ),
    Rule(
        "no prompt beats a prefix on labels",
        _labelled,
        "labels or choices",
        (*PROMPTS, *TABLES),
        "on labels no difference between prompt and prefix was shown on five sets of six; where there were "
        "many labels, the prefix did better",
        _nine(
            "clinc150 (16 labels): prefix 0.733 and 0.73, prompt 0.537 and 0.587, shown; ag_news, mrpc, qqp, "
            "rte, sst2: none shown; with more rows, SST-2: 86.5 ± 0.7 and 87.6 ± 1.0 after the input",
            also="; " + SST2,
        ),
    ),
    Rule(
        "a prefix writes better",
        _writes,
        "free text",
        TABLES,
        "in writing, keys and values in every layer did better than vectors at the input alone",
        _nine(
            "perplexity, prefix and prompt ahead of the input: bible_style 2.55 and 2.93, "
            "natural_instructions 6.28 and 8.34, webnlg 3.88 and 4.5, shown on all three, behind it too; "
            "E2E: BLEU 69.7 with a prefix, 62.2 with embeddings only; GSM8K .416 with a prefix of 50, .343 "
            "with a prompt of 200",
            5,
            also="; Li & Liang 2021, E2E with GPT-2 medium; " + BOARD,
            limits="; GSM8K is one seed with a standard error of 1.4 points",
        ),
        over=PROMPTS,
    ),
    Rule(
        "ahead of the input writes a little better",
        _writes,
        "free text",
        ("prefix-tuning/before",),
        "ahead of the input a prefix wrote slightly better than behind it",
        _nine(
            "perplexity ahead and behind: bible_style 2.55 and 2.64, natural_instructions 6.28 and 6.89, "
            "webnlg 3.88 and 4.18, shown on all three; E2E: BLEU 69.7 for a prefix, 67.9, 67.2 and 66.7 for "
            "an infix of 1, 10 and 20",
            4,
            also="; Li & Liang 2021, E2E with GPT-2 medium",
        ),
        over=("prefix-tuning/after",),
    ),
    Rule(
        "made from the input, for writing",
        lambda n: _writes(n) and n.rows >= ENOUGH,
        f"free text, and {ENOUGH} rows or more",
        GENERATED,
        "a prefix made from the input was not shown to write better than a plain one, as a paper had it",
        _nine(
            "perplexity, made from the input and plain, both behind it: bible_style 2.7 and 2.64, webnlg 4.3 "
            "and 4.18, natural_instructions 6.41 and 6.89, none shown; IDP: ROUGE-Lsum 71.7 for one made "
            "from the instance, 64.5 for a static one, 0.5 M parameters each",
            also="; IDP",
            limits="; generated prompts were not compared",
        ),
    ),
    Rule(
        "a generator wants rows and steps",
        lambda n: _answers(n) and n.rows < ENOUGH,
        f"fewer than {ENOUGH} rows, no embeddings",
        GENERATED,
        "a generator has a million numbers to train and needs a low rate and time",
        Evidence(
            "docs/results.md, What decides",
            "SST-2: 82.0 after 200 steps, 85.6 after 400, and 52.8 at a rate of 1e-2",
            "one seed, 1,000 rows; with how few rows it fails was not measured",
            BENCHMARK + " --only generated-prefix/after",
            sets=1,
        ),
        under=(*PROMPTS, *TABLES, LORA),
    ),
    Rule(
        "LoRA writes best",
        lambda n: _writes(n) and n.rows >= ENOUGH,
        f"free text, and {ENOUGH} rows or more",
        (LORA,),
        "in writing LoRA did better than any prompt or prefix",
        _nine(
            "perplexity, LoRA and the best prefix: bible_style 2.47 and 2.55, natural_instructions 5.75 and "
            "6.28, webnlg 3.68 and 3.88; GSM8K: LoRA .478, the best prefix .416, the best prompt .343",
            4,
            also="; " + BOARD,
            limits="; on webnlg not shown against the prefix ahead of the input; GSM8K is one seed",
        ),
        over=(*PROMPTS, *TABLES, "generated-prefix/after", P_TUNING),
    ),
    Rule(
        "LoRA on labels",
        _labelled,
        "labels or choices",
        (LORA,),
        "on labels LoRA was shown to differ from prompts on one set of six, from prefixes on none",
        _nine(
            "clinc150: LoRA 0.793, prefixes 0.733 and 0.73, prompts 0.537 and 0.587; with more rows, SST-2: "
            "LoRA 85.9 ± 0.9, prompts 86.5 ± 0.7, prefixes 87.6 ± 1.0",
            also="; " + SST2,
        ),
    ),
    Rule(
        "much to train for as much",
        lambda n: True,
        "always",
        (P_TUNING,),
        "its network has far more to train than a prompt, and was seldom shown to be better",
        _nine(
            "shown to be better than the plain prompt behind the input on two sets of nine "
            "(natural_instructions 7.57 and 8.83, clinc150 0.69 and 0.587); GSM8K: P-tuning .350 with 28.4 M "
            "numbers trained, prompt tuning .343 with 0.6 M",
            10,
            also="; " + BOARD,
            limits="; GSM8K is one seed; its artifact is the smaller, since the network is discarded",
        ),
        under=("prompt-tuning/after",),
    ),
    Rule(
        "unseen inputs, writing",
        lambda n: n.required.unseen and _writes(n),
        "--unseen, free text",
        (*TABLES, LORA),
        "on inputs of a new kind prefixes and LoRA wrote better than prompts",
        _nine(
            "perplexity of unseen inputs, LoRA, prefix and prompt ahead of the input: bible_style 4.59, 4.8 "
            "and 5.29, natural_instructions 9.14, 10.3 and 11.4, webnlg 3.97, 4.18 and 4.45, shown against "
            "the prompt; WebNLG: BLEU 44.1 to 45.6 for a prefix, 46.7 for LoRA, 27.7 to 30.4 for full "
            "fine-tuning",
            4,
            also="; published figures for WebNLG, unseen categories",
        ),
        over=PROMPTS,
    ),
    Rule(
        "unseen inputs, labels",
        lambda n: n.required.unseen and _labelled(n),
        "--unseen, labels or choices",
        (*SOFT, *TABLES, LORA),
        "on labels of a new kind of input nothing was shown to be better: compare on held-out kinds of yours",
        _nine(
            "ten pairs of prefix and prompt on five sets, none shown, the prompt ahead in eight: ahead of "
            "the input ag_news 0.736 and 0.783, sst2 0.798 and 0.797",
            limits="; differences under 10 to 30 points could not have been shown; a sixth set, clinc150, is "
            "left out: its unseen rows all have one label",
        ),
    ),
    Rule(
        "words counted may do",
        lambda n: n.kind == "classification" and n.rows >= ENOUGH,
        f"labels, and {ENOUGH} rows or more",
        TRAINED,
        "compare it with TF-IDF and logistic regression, which needs no model at all",
        Evidence(
            "TF-IDF and logistic regression, six public sets",
            "SST-2 .81, AG News .87, Banking77 .89, CLINC150 .92, MNLI .39, QQP .72",
            "how many rows it learned from differs by set; softprompt inspect fits it to yours",
        ),
    ),
    Rule(
        "a prompt leaks less",
        lambda n: n.tasks >= 2,
        "several prompts",
        PROMPTS,
        "while it is attached, a prompt changed what the model does with other text less than a prefix did",
        Evidence(
            NINE,
            "loss on unrelated text, nats a token: clinc150 0.199 and 6.86 ahead of the input, sst2 0.55 and "
            "9.16 behind it, webnlg 0.14 and 0.451 ahead; less in seventeen pairs of eighteen",
            "one final each, 12 to 32 texts; of no weight where a prompt gets its own kind of input alone",
            "python -m benchmarks.comparisons.claims",
        ),
    ),
)
