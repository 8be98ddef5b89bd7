"""SNS: the adapter behind ports.Notifier."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

MAX_SUBJECT = 100  # characters: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html


class SnsNotifier:
    """Publishes to the stack's topic. Raises botocore's errors."""

    def __init__(self, client: "SNSClient", topic_arn: str) -> None:
        self._client = client
        self._topic_arn = topic_arn

    def notify(self, subject: str, message: str) -> None:
        self._client.publish(TopicArn=self._topic_arn, Subject=subject[:MAX_SUBJECT], Message=message)
