"""A study's words: whose each is, who wins, and the combinations that they expand to."""

import itertools

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from study_stub import SITES, STUDY, planned

from segshift.errors import InputError
from segshift.study import procedure
from segshift.study.expansion import Part, checked_study, combinations, parts_of
from segshift.study.words import divided, overridden, parsed


class TestWords:
    def test_the_studys_words_are_told_from_those_of_its_jobs(self):
        own, jobs = divided(
            ["study=demo", "model=unet2d", "workers=2", "study.attribute=false", "launcher=slurm",
             "launcher.hours=2", "dry_run=true", "name=x", "folder=y", "trainer.workers=1",
             "~study.parts.out", "+more=1"]
        )  # fmt: skip
        assert own == (
            "study=demo", "workers=2", "study.attribute=false", "launcher=slurm",
            "launcher.hours=2", "dry_run=true", "name=x", "folder=y", "~study.parts.out",
        )  # fmt: skip
        assert [word.texts for word in jobs] == [
            ("model=unet2d",), ("trainer.workers=1",), ("+more=1",),
        ]  # fmt: skip

    def test_several_values_are_an_axis_as_in_a_sweep(self):
        words = parsed(
            ["loss=dice,focal", "seed=range(0,3)", "split.held_out=[a,b],c", "x='a,b'", "+y=1,2",
             "seed2=1,1"]
        )  # fmt: skip
        assert [word.texts for word in words] == [
            ("loss=dice", "loss=focal"), ("seed=0", "seed=1", "seed=2"),
            ("split.held_out=[a,b]", "split.held_out=c"), ("x='a,b'",), ("+y=1", "+y=2"),
            ("seed2=1",),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("word", "told"),
        [
            ("-m", "sweeps without -m"),
            ("--multirun", "--multirun"),
            ("hydra.run.dir=x", "name="),
            ("workers=1,2", "one value"),
            ("study=demo,cross_site", "one study at a time"),
            ("optim.lr=interval(0,1)", "optim.lr=1,2"),
        ],
    )
    def test_what_a_study_cannot_do_is_refused(self, word, told):
        with pytest.raises(InputError, match=told):
            divided([word])

    @pytest.mark.parametrize(
        ("base", "by", "result"),
        [
            (["loss=dice"], ["loss=focal"], ["loss=focal"]),
            (["split.fold=0"], ["split.fold=0,1"], ["split.fold=0,1"]),
            (["split=a", "split.b=each_site"], ["split=random"], ["split=random"]),
            (["split=a", "split.b=1"], ["split.c=2"], ["split=a", "split.b=1", "split.c=2"]),
            (["splitting.x=1"], ["split=random"], ["splitting.x=1", "split=random"]),
            (["model.size=1"], ["seed=1"], ["model.size=1", "seed=1"]),
        ],
    )
    def test_the_users_word_wins(self, base, by, result):
        expected = [word.texts for word in parsed(result)]
        assert [word.texts for word in overridden(parsed(base), parsed(by))] == expected


class TestExpansion:
    @staticmethod
    def all_of(*words: str, sites=SITES, at_least=1):
        part = Part("p", parsed(words), at_least)
        return list(combinations(part, lambda overrides: tuple(sites)))

    def test_every_combination_once(self):
        found = self.all_of("loss=dice,focal", "seed=0,1,2", "split.held_out=each_site", "x=1")
        expected = [
            (f"loss={loss}", f"seed={seed}", f"split.held_out={site}", "x=1")
            for loss, seed, site in itertools.product(("dice", "focal"), (0, 1, 2), SITES)
        ]
        assert [one.overrides for one in found] == expected
        assert {one.variant for one in found} == {"loss=dice", "loss=focal"}

    @pytest.mark.parametrize(
        ("words", "variants"),
        [
            (["seed=0,1", "split.fold=0,1", "split.source=a,b", "split.x=each_site"], {""}),
            (["selection_site=each_site"], {f"selection_site={site}" for site in SITES}),
            (["loss=dice"], {""}),
            (["loss=dice,focal", "+model.a=1,2"], {
                "loss=dice model.a=1", "loss=dice model.a=2",
                "loss=focal model.a=1", "loss=focal model.a=2"}),
            (["split.seed=0,1"], {"split.seed=0", "split.seed=1"}),
        ],
    )  # fmt: skip
    def test_a_variant_is_what_is_compared(self, words, variants):
        assert {one.variant for one in self.all_of(*words)} == variants

    def test_a_part_needs_its_sites(self):
        assert len(self.all_of("s=each_site", at_least=3)) == 3
        assert self.all_of("s=each_site", at_least=4) == []

    @pytest.mark.parametrize(
        "site", ["St. Mary's, ward 2", "a=b", "null", "12", "x y\\", "\xe9t\xe9", "a-b"]
    )
    def test_a_site_may_have_any_name(self, site):
        (one,) = self.all_of("split.held_out=each_site", sites=[site])
        (override,) = OverridesParser.create().parse_overrides(list(one.overrides))
        assert override.value() == site

    def test_a_part_under_the_studys_and_the_users_words(self):
        study = {
            "overrides": ["seed=0,1", "loss=dice"],
            "parts": {"a": {"overrides": ["loss=focal"]}, "b": None, "c": {"sites_at_least": 2}},
        }
        a, c = parts_of(study, parsed(["seed=5"]), split_options=frozenset)
        assert [word.texts[0] for word in a.words] == ["loss=focal", "seed=5"]
        assert [word.texts[0] for word in c.words] == ["loss=dice", "seed=5"]
        assert (a.sites_at_least, c.sites_at_least) == (1, 2)

    @pytest.mark.parametrize(
        ("study", "told"),
        [
            ({"part": {}}, "study.part"),
            ({"parts": {}}, "study.parts is empty"),
            ({"parts": {"a": {"override": []}}}, "study.parts.a.override: .*sites_at_least"),
            ({"parts": {"a": {"sites_at_least": "two"}}}, "study.parts.a.sites_at_least=two"),
            ({"parts": {"a": {"sites_at_least": True}}}, "sites_at_least=True"),
            ({"parts": {"a": {"sites_at_least": 0}}}, "sites_at_least=0"),
            ({"parts": {"a": {"overrides": "seed=0"}}}, "study.parts.a.overrides=seed=0: a list"),
            ({"parts": {"a": 3}}, "study.parts.a=3"),
            ({"parts": ["a"]}, "study.parts="),
            ({"overrides": "seed=0", "parts": {"a": {}}}, "study.overrides=seed=0: a list"),
            ({"overrides": [{"seed": 0}], "parts": {"a": {}}}, "study.overrides=.*a list"),
            ({"attribute": "maybe", "parts": {"a": {}}}, "study.attribute=maybe: true or false"),
            ({"question": 3, "parts": {"a": {}}}, "study.question=3"),
            ("mine", "study=mine"),
        ],
    )
    def test_a_study_that_is_none_is_refused(self, study, told):
        with pytest.raises(InputError, match=told):
            parts_of(checked_study(study), (), split_options=frozenset)

    def test_a_yaml_of_ones_own_is_checked_before_anything_runs(self, place, base):
        (place / "study" / "mine.yaml").write_text(f"{STUDY}attribute: maybe\n")
        with pytest.raises(InputError, match="study.attribute=maybe"):
            planned(*base)
        (place / "study" / "mine.yaml").write_text("")
        assert "study=mine" in procedure.help_text()
        with pytest.raises(InputError, match="study.parts is empty"):
            planned(*base)

    def test_a_word_about_a_split_is_for_the_parts_whose_split_has_it(self):
        splits = {"one": frozenset({"fold", "seed"}), "other": frozenset({"seed"})}
        study = {"parts": {"a": {"overrides": ["split=one"]}, "b": {"overrides": ["split=other"]}}}
        words = parsed(["split.fold=0,1", "split.seed=3", "split.typo=2"])
        a, b = parts_of(study, words, split_options=splits.__getitem__)
        assert [w.key for w in a.words] == ["split", "split.fold", "split.seed", "split.typo"]
        assert [w.key for w in b.words] == ["split", "split.seed", "split.typo"]
        # A split of the user's own is the split of every part.
        a, b = parts_of(
            study, parsed(["split=other", *("split.fold=0",)]), split_options=splits.get
        )
        assert [w.key for w in a.words] == [w.key for w in b.words] == ["split", "split.fold"]
