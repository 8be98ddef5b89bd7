"""A wiring on moto with clients that moto has no service for, stubbed: the Price List API and Service Quotas."""

from functools import cached_property
from typing import Any

import botocore.stub

from chalicelib.operators.clients import Clients
from chalicelib.pricing.price_list import QUESTIONS
from chalicelib.wiring import Wiring
from tests.localcloud.interposer import dead_session


class StubbedClients(Clients):
    """`price_list`: what GetProducts answers, by the name of the price; others get an empty list."""

    def __init__(self, wired: Wiring, price_list: dict[str, list[str]], fails: str = "") -> None:
        super().__init__(wired)
        self._price_list = price_list
        self._fails = fails
        self.asked: list[dict[str, Any]] = []

    @cached_property
    def pricing(self) -> Any:
        session: Any = dead_session()
        client = session.client("pricing", region_name="eu-central-1")
        stubber = botocore.stub.Stubber(client)
        for name, question in QUESTIONS.items():
            expected = {
                "ServiceCode": question.service,
                "Filters": question.filters(self.region),
                "FormatVersion": "aws_v1",
            }
            self.asked.append(expected)
            if self._fails == name:
                stubber.add_client_error("get_products", "AccessDeniedException", "not authorized", 400, None, expected)
            else:
                entries = self._price_list.get(name, [])
                stubber.add_response("get_products", {"FormatVersion": "aws_v1", "PriceList": entries}, expected)
        stubber.activate()
        return client
