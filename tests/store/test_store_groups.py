"""A shard's name says which groups it holds."""

from grhpc.store.groups import groups_of, heldout_name, heldout_version, is_heldout, train_name


def test_names_say_their_groups():
    assert list(groups_of(train_name(32, 3))) == [32, 33, 34] and not is_heldout(train_name(32, 3))
    assert list(groups_of(heldout_name(10, 256))) == [] and is_heldout(heldout_name(10, 256))
    assert heldout_version(heldout_name(10, 256)) == 10
    assert list(groups_of("notes")) == []
