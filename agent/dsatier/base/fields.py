# SPDX-License-Identifier: Apache-2.0
"""What the annotations of our values say to pydantic, in addition to bounds and lengths.

The daemon holds values for months and has children validate them, so values are there without
pydantic: what is for it alone is made when it asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

if TYPE_CHECKING:
    from pydantic import ConfigDict, GetCoreSchemaHandler
    from pydantic_core import CoreSchema

T = TypeVar("T")

STRICT: ConfigDict = {"strict": True, "extra": "forbid"}


class Tagged:
    """Marks a union whose member is chosen by the field ``key``."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic import Field

        return handler.generate_schema(Annotated[source, Field(discriminator=self.key)])


class OrDefault:
    """Marks a field that has a default: null is as good as not naming it."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import PydanticUseDefault
        from pydantic_core.core_schema import no_info_before_validator_function

        def named(value: T) -> T:
            if value is None:
                raise PydanticUseDefault
            return value

        return no_info_before_validator_function(named, handler(source))


class Whole:
    """Marks literal numbers: 1 is meant, and not what is equal to it, 1.0 and true."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import PydanticKnownError
        from pydantic_core.core_schema import no_info_before_validator_function

        def whole(value: T) -> T:
            if type(value) is not int:
                raise PydanticKnownError("int_type")
            return value

        return no_info_before_validator_function(whole, handler(source))


class OneOrMore:
    """Marks a tuple of which one item may stand for itself, as earlier versions wrote it."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core.core_schema import no_info_before_validator_function

        def listed(value: Any) -> Any:
            if isinstance(value, list):
                return tuple(value)
            return (value,) if type(value) is int else value

        return no_info_before_validator_function(listed, handler(source))


FirstVersion = Annotated[Literal[1], Whole()]
"""The version of a schema that has had one version."""
