"""Questions that a model asks the user, pending until answered or rejected."""

from holdfast.core.permissions import ToolReference
from holdfast.core.wire import Wire


class QuestionOption(Wire):
    label: str
    description: str


class Question(Wire):
    question: str
    header: str
    options: tuple[QuestionOption, ...]
    multiple: bool | None = None
    custom: bool | None = None


class QuestionRequest(Wire):
    id: str
    session_id: str
    questions: tuple[Question, ...]
    tool: ToolReference | None = None
