"""Dataclasses of tensors as pytrees, so that torch.export, torch.func and their kin see inside."""

from __future__ import annotations

from typing import Any

from torch.utils import _pytree


def register(cls: type) -> None:
    """Register a dataclass, whose leaves are those of its fields that are not None."""

    def flatten_with_keys(value: Any) -> tuple[list, tuple[str, ...]]:
        present = {name: part for name, part in vars(value).items() if part is not None}
        return [(_pytree.GetAttrKey(k), part) for k, part in present.items()], tuple(present)

    def flatten(value: Any) -> tuple[list, tuple[str, ...]]:
        leaves, names = flatten_with_keys(value)
        return [leaf for _, leaf in leaves], names

    def unflatten(leaves: Any, names: tuple[str, ...]) -> Any:
        # Leaves need not be tensors here, so no constructor is to look at them.
        value = object.__new__(cls)
        vars(value).update(
            dict.fromkeys(cls.__dataclass_fields__), **dict(zip(names, leaves, strict=True))
        )
        return value

    _pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=flatten_with_keys,
    )
