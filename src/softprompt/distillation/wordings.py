"""The wordings in which the model is asked for a request that somebody might send (self-study)."""

from __future__ import annotations

#: What a system prompt is for, in five kinds, and the wordings of each.
SYSTEM: dict[str, tuple[str, ...]] = {
    "question": (
        "Write one question that a person may ask you. Write the question alone.",
        "Give me one short question about your subject. Write nothing else.",
        "What might a new user ask you first? Write only that question.",
    ),
    "task": (
        "Write one task that a person may give you. Write the task alone.",
        "Give me one instruction that a user could send to you. Write nothing else.",
    ),
    "use case": (
        "Describe in one sentence a problem that somebody brings to you, in their own words.",
        "Write one message of a person who needs your help today. Write only the message.",
    ),
    "structure": (
        "Write one request that asks you for a list, a table or steps. Write the request alone.",
        "Give me one request for a summary or a comparison. Write nothing else.",
    ),
    "creative": (
        "Write one unusual request that has little to do with your instructions. Write it alone.",
        "Give me one playful message that somebody could send to you. Write nothing else.",
    ),
}

#: What a document may be asked, in the five kinds of seeds of Cartridges (Eyuboglu et al. 2025, section 4).
DOCUMENT: dict[str, tuple[str, ...]] = {
    "question": (
        "Write one question about a fact in this document: a name, a number, a date or a place. "
        "Write the question alone.",
        "Ask one short question that this document answers. Write nothing else.",
        "Choose a detail of this document that is easy to miss, and ask for it in one question.",
        "Write one question of an exam about this document. Write only the question.",
    ),
    "summarization": (
        "Write one request for a summary of one section of this document. Name the section. "
        "Write the request alone.",
        "Ask in one sentence for the main points about one subject of this document. Name the subject.",
        "Write one message that asks to explain a part of this document in two sentences. Name the part.",
    ),
    "structuring": (
        "Write one request to put facts of this document into a list or a table. Say which facts. "
        "Write the request alone.",
        "Ask in one sentence for the steps of something that this document describes. Name it.",
        "Write one request to compare two things that this document mentions. Name both.",
    ),
    "use case": (
        "Somebody has a problem that this document helps with. Write their question in one sentence.",
        "Write one message of a person who needs a fact of this document for their work. "
        "Write only the message.",
        "Describe in one sentence a situation in which this document is needed, and end with a question.",
    ),
    "creative": (
        "Write one unusual question that a curious reader of this document could ask. Write it alone.",
        "Ask in one sentence for something playful to be made of the facts of this document.",
    ),
}
