"""The Lambdas, by their names in app.py, in the template and in the account."""

from dataclasses import dataclass

# https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
MAX_NAME = 64


@dataclass(frozen=True)
class Function:
    """`name` is the one in app.py; `api_handler` is Chalice's word for all routes together."""

    name: str

    @property
    def resource(self) -> str:
        """Its logical id, as Chalice makes it."""
        return "APIHandler" if self.name == "api_handler" else self._camel

    @property
    def role(self) -> str:
        return f"{self._camel}Role"

    @property
    def log_group(self) -> str:
        return f"{self._camel}LogGroup"

    @property
    def suffix(self) -> str:
        """In the account it is called STACK-suffix.

        A name of our own, and not CloudFormation's, so that role and log group can name the function that does not
        exist yet, and `vaultctl` need look nothing up.
        """
        return {"api_handler": "api"}.get(self.name, self.name.replace("_", "-"))

    @property
    def _camel(self) -> str:
        return "".join(word.title() for word in self.name.split("_"))
