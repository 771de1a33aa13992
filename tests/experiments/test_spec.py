"""Experiments as TOML: every file that comes along is sound, every slip is named."""

import pytest

from pycaffe_prune.cli.reproduce.experiment_data import pretraining_files
from pycaffe_prune.engines.caffe.caffe_worker.loop import learning_rate
from pycaffe_prune.engines.resolved_solver import solver_settings
from pycaffe_prune.engines.solver_nets import net_of_solver
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.plan import make_plan, retraining_solver_path, solver_path
from pycaffe_prune.experiments.spec import find_experiment, list_presets, read_experiment
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.reports.paper.figures_and_tables import TABLE_5

SHIPPED = [(name, preset) for name, presets in list_presets().items() for preset in presets]


def tables(spec):
    """The methods by what they are called."""
    return {method.called: method for method in spec.methods}


def test_the_presets_that_are_promised_are_there():
    presets = list_presets()
    for name in ("lenet-300-100", "lenet-5"):
        assert {"quick", "paper", "paper-10k"} <= set(presets[name])
    assert {"tiny", "paper"} <= set(presets["caffenet-oxford102"])


@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_every_experiment_names_itself_and_a_net_that_has_its_layers(name, preset):
    toml = find_experiment(name, preset)
    spec = read_experiment(toml)
    assert (spec.name, spec.preset) == (name, preset)
    net = read_net(net_of_solver(solver_path(spec, toml)))
    fully_connected = [layer.name for layer in net.layer if layer.type == "InnerProduct"]
    assert list(spec.layers) == fully_connected
    if (units := tables(spec).get("units")) is not None:
        assert {*units.varied, *units.fixed} <= set(fully_connected[:-1])


@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_every_experiment_plans_as_many_stages_as_it_says(name, preset, tmp_path, data_set):
    toml = find_experiment(name, preset)
    spec = read_experiment(toml)
    solver, again = solver_path(spec, toml), retraining_solver_path(spec, toml)
    able = {"caffe"}.intersection(*(method.engines for method in spec.methods)) or {"torch"}
    before = pretraining_files(spec, toml, tmp_path, lambda _: data_set)
    plan = make_plan(
        *(spec, solver, tmp_path, tmp_path, data_set, *able),
        retraining_solver=again,
        pretraining=before,
    )
    seeds = len(spec.baseline.seeds)
    most = seeds * (1 if before is None else 2) + (
        seeds if spec.baseline.prune == "each" else 1
    ) * sum(method.most_stages(spec.methods[:number]) for number, method in enumerate(spec.methods))
    keys = {stage.key for stage in plan.stages}
    assert len(plan.stages) == len(keys) <= most
    shared = spec.baseline.prune == "each" and "small" in tables(spec)  # of all pruning seeds
    if tables(spec).keys() <= {"connections", "units", "small"} and not shared:
        assert len(keys) == most
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "lowest"), [("lenet-300-100", 0.6), ("lenet-5", 0.7)])
@pytest.mark.parametrize(("preset", "iterations"), [("paper", 100_000), ("paper-10k", 10_000)])
def test_the_paper_presets_keep_to_the_protocol(name, lowest, preset, iterations):
    spec = read_experiment(find_experiment(name, preset))
    connections, units = tables(spec)["connections"], tables(spec)["units"]
    assert (connections.rounds, len(spec.baseline.seeds)) == (5, 5)
    assert len(connections.alphas) >= 8
    assert (min(connections.alphas), max(connections.alphas)) == (lowest, 2.8)
    assert connections.iterations == units.iterations == iterations
    assert connections.sigma == "initial"


def test_caffenet_is_pruned_as_in_table_5():
    toml = find_experiment("caffenet-oxford102", "paper")
    spec = read_experiment(toml)
    methods = tables(spec)
    assert list(methods) == ["connections", "units"]
    assert methods["connections"].alphas == tuple(row.alpha for row in TABLE_5)
    assert (methods["connections"].rounds, methods["connections"].iterations) == (3, 50_000)
    assert methods["units"].layers == ("fc6", "fc7")
    solver = read_solver(solver_path(spec, toml))
    assert (solver.base_lr, solver.stepsize, solver.max_iter) == pytest.approx((1e-3, 20000, 50000))
    assert solver.test_iter[0] * 50 == 6200


KINDS = ("baseline", "connections", "units", "small")
LENETS = ("lenet-300-100", "lenet-5")
EACH = {"baseline.seeds", "baseline.prune"}
OF_BOTH_LENETS = {
    "paper-10k-sigma-all": {"connections.sigma"},
    "paper-10k-sigma-survivors": {"connections.sigma"},
    "paper-10k-sets3": {"connections.rounds"},
    "paper-10k-seeds3": {"baseline.seeds", "small.seeds"},
    "paper-10k-baseline100k": {"baseline.iterations"},
    "paper-10k-continued": {"retraining_solver"},
    "paper-10k-small20k": {"small.iterations"},
    "paper-10k-each3": EACH,
    "paper-10k-continued-each3": {"retraining_solver", *EACH},
}
VARIANTS = [
    # What each variant changes, and nothing beside.
    *((name, preset, OF_BOTH_LENETS[preset]) for name in LENETS for preset in OF_BOTH_LENETS),
    ("lenet-5", "paper-10k-sets3-each3", {"connections.rounds", *EACH}),
    ("lenet-300-100", "paper-10k-fixed0", {"units.fixed"}),
    ("lenet-300-100", "paper-small200k", {"small.iterations"}),
    ("lenet-300-100", "paper-each3", EACH),
    ("lenet-300-100", "paper-100k-subset", {"connections.alphas", "units.ratios", "small.seeds"}),
    ("caffenet-oxford102", "dropout", {"solver"}),
]


def _flat(fields, prefix=""):
    """Every setting by its dotted name; of tables only those that the spec itself has."""
    for name, value in fields.items():
        if name == "methods":
            for table in value:
                yield from _flat(table, f"{table['name'] or table['kind']}.")
        elif not prefix and isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield prefix + name, value


@pytest.mark.parametrize(("name", "preset", "changed"), VARIANTS)
def test_a_variant_changes_its_one_reading_and_tells_it(name, preset, changed):
    spec = read_experiment(find_experiment(name, preset))
    assert spec.variant_of
    assert spec.reading
    basis = read_experiment(find_experiment(name, spec.variant_of))
    ours, theirs = (dict(_flat(one.model_dump())) for one in (spec, basis))
    differing = {key for key in ours if ours[key] != theirs.get(key)}
    assert differing == changed | {"preset", "variant_of", "reading"}


def test_all_variants_are_looked_at():
    found = {
        (name, preset)
        for name, preset in SHIPPED
        if name in ("lenet-300-100", "lenet-5", "caffenet-oxford102")
        and read_experiment(find_experiment(name, preset)).variant_of
    }
    assert found == {(name, preset) for name, preset, _ in VARIANTS}


@pytest.mark.parametrize(
    ("name", "preset"),
    [*((name, "paper-10k-small20k") for name in LENETS), ("lenet-300-100", "paper-small200k")],
)
def test_small_models_may_have_as_many_iterations_as_unit_pruning_has_in_all(name, preset):
    spec = read_experiment(find_experiment(name, preset))
    methods = tables(spec)
    assert methods["small"].iterations == spec.baseline.iterations + methods["units"].iterations


def stage_keys(name, tmp_path, data_set):
    """Return what tells the keys of a preset's stages by their kind."""

    def keys(preset):
        toml = find_experiment(name, preset)
        spec = read_experiment(toml)
        solvers = solver_path(spec, toml), retraining_solver_path(spec, toml)
        plan = make_plan(
            spec, solvers[0], tmp_path, tmp_path, data_set, "torch", retraining_solver=solvers[1]
        )
        return {kind: {s.key for s in plan.stages if s.kind == kind} for kind in KINDS}

    return keys


@pytest.mark.parametrize("name", LENETS)
def test_presets_of_one_family_share_what_they_have_in_common(name, tmp_path, data_set):
    keys = stage_keys(name, tmp_path, data_set)
    basis, sets3, each3 = map(keys, ("paper-10k", "paper-10k-sets3", "paper-10k-each3"))
    assert all(sets3[kind] <= basis[kind] for kind in KINDS)
    assert each3["baseline"] < basis["baseline"]
    assert each3["small"] == basis["small"]
    assert not each3["units"] & basis["units"]


def test_three_sets_of_each_of_three_nets_are_the_first_of_five(tmp_path, data_set):
    keys = stage_keys("lenet-5", tmp_path, data_set)
    sets3, each3 = map(keys, ("paper-10k-sets3-each3", "paper-10k-each3"))
    assert sets3["connections"] < each3["connections"]
    assert all(sets3[kind] == each3[kind] for kind in KINDS if kind != "connections")


@pytest.mark.parametrize("name", LENETS)
def test_a_retraining_goes_on_at_the_rate_at_which_the_initial_training_ends(name):
    toml = find_experiment(name, "paper-10k-continued")
    spec = read_experiment(toml)
    first, again = (
        solver_settings(read_solver(path)).model_dump()
        for path in (solver_path(spec, toml), retraining_solver_path(spec, toml))
    )
    for iteration in (0, 1, 5_000, 9_999):
        continued = learning_rate(first, spec.baseline.iterations + iteration)
        assert learning_rate(again, iteration) == pytest.approx(continued, rel=1e-6)


def test_a_variant_of_a_file_that_is_not_there_or_of_a_variant_is_refused(toml):
    variant = toml.parent / "small.other.toml"
    variant.write_text('name = "small"\npreset = "other"\nvariant_of = "test"\n')
    with pytest.raises(FormatError, match=r"small\.test\.toml.*is a variant of"):
        read_experiment(variant)
    toml.rename(toml.parent / "small.test.toml")
    assert read_experiment(variant).preset == "other"
    (toml.parent / "small.third.toml").write_text(
        'name = "small"\npreset = "third"\nvariant_of = "other"\n'
    )
    with pytest.raises(FormatError, match="is one itself; name 'test'"):
        read_experiment(toml.parent / "small.third.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds = 2", "round = 2", "connections"),
        ("rounds = 2", "rounds = 0", r"connections\.rounds"),
        ("seeds = [1, 2]", "seeds = []", r"seeds"),
        ("alphas =", 'sigma = "median"\nalphas =', r"connections\.sigma"),
        ("[baseline]", "[baseline", "line"),
        ('layer = "ip1"', "", "units: .*either layer or layers"),
        ('layer = "ip1"', 'layer = "ip1"\nlayers = ["ip1"]', "units: .*either layer or layers"),
        ("ip2 = 0.5", "ip1 = 0.5", "the share of layer 'ip1' is varied and fixed"),
        ("ip2 = 0.5", "ip22 = 0.5", "units: .*'ip22' is none of the layers, which are ip1, ip2, "),
        ('layer = "ip1"', 'layer = "ipl"', "units: .*'ipl' is none of the layers"),
        ("ip2 = 0.5", "ip2 = 1", r"units\.fixed\.ip2"),
        ("ratios = [0.5", "ratios = [-0.5", r"units\.ratios\.0"),
        ("ratios =", 'criterion = "onrom"\nratios =', "'onrom'; there are: .*inorm, .*, onorm"),
        ("alphas = [0.8", "alphas = [-0.8", r"connections\.alphas\.0"),
        ("alphas = [0.8", "alphas = [nan", r"connections\.alphas\.0"),
        ("[0.8, 1.6]", "[1.0, 1]", r"connections\.alphas: .*1\.0 is given twice"),
        ("[0.5, 0.9]", "[0.9, 0.9]", r"units\.ratios: .*0\.9 is given twice"),
        ("seeds = [1, 2]", "seeds = [1, 1]", r"baseline\.seeds: .*1 is given twice"),
        ('"small"\nseeds = [1, 2]', '"small"\nseeds = [3, 3]', r"small\.seeds: .*3 is given twice"),
        ('"ip2", "ip3"', '"ip2", "ip2"', "layers: .*ip2 is given twice"),
        ("[baseline]", "[weights]\n[baseline]", "weights: .*either path or zoo"),
        (
            'kind = "small"',
            'kind = "smal"',
            "methods: no method is of the kind 'smal'; there are: .*connections, ",
        ),
        ('kind = "small"', "", "methods: no kind is given; there are: .*connections, "),
        (
            'kind = "small"',
            'kind = "small"\nof = "unit"',
            "small: of: no method before it is called 'unit'",
        ),
        ('kind = "small"', 'kind = "units"\nlayer = "ip1"\nratios = [0]', "extra|not permitted"),
        ('kind = "small"', 'kind = "small"\nname = "units"', "two are called 'units'"),
        ("[baseline]", "[small]\nseeds = [1]\n[baseline]", r"has \[\[methods\]\] and \[small\]"),
    ],
)
def test_a_slip_is_named_with_file_and_field(toml, old, new, message):
    toml.write_text(toml.read_text().replace(old, new, 1))
    with pytest.raises(FormatError, match=rf"small\.toml: .*{message}"):
        read_experiment(toml)


def test_a_layer_that_the_net_has_not_is_named_before_anything_is_trained(toml, tmp_path, data_set):
    toml.write_text(toml.read_text().replace('"ip3"]', '"ip4"]'))
    spec = read_experiment(toml)
    with pytest.raises(FormatError, match=r"net\.prototxt: .* 'ip4'; there are: ip1, ip2, ip3"):
        make_plan(spec, solver_path(spec, toml), tmp_path, tmp_path, data_set, "caffe")


def test_shares_that_round_to_one_shape_have_its_small_models_in_common(toml, tmp_path, data_set):
    toml.write_text(toml.read_text().replace("[0.5, 0.9]", "[0.5, 0.51, 0.9]"))  # of 20 units
    spec = read_experiment(toml)
    plan = make_plan(spec, solver_path(spec, toml), tmp_path, tmp_path, data_set, "caffe")
    shapes = dict.fromkeys(chain.units for chain in plan.chains("small"))
    assert [shape[0] for shape in shapes] == [("ip1", 10), ("ip1", 2)]
    assert len({stage.key for stage in plan.stages}) == len(plan.stages)


def test_where_each_initial_training_is_pruned_every_point_is_there_for_each(
    toml, tmp_path, data_set
):
    def plan():
        spec = read_experiment(toml)
        return make_plan(spec, solver_path(spec, toml), tmp_path, tmp_path, data_set, "caffe")

    best = plan()
    toml.write_text(toml.read_text().replace("[baseline]", '[baseline]\nprune = "each"'))
    each = plan()
    for method in ("connections", "units"):
        assert len(each.chains(method)) == 2 * len(best.chains(method))
        for chain in each.chains(method):
            (begun,) = chain.stages[-1].baselines
            assert all(stage.baselines == (begun,) for stage in chain.stages)
    small = [[chain.stages[-1].key for chain in one.chains("small")] for one in (best, each)]
    assert small[0] == small[1]  # nothing of the initial training is in them
    assert {stage.key for stage in best.baselines} == {stage.key for stage in each.baselines}


def test_an_unknown_experiment_is_answered_with_those_there_are():
    with pytest.raises(FormatError, match=r"methods-lenet-5 \(full, quick\)"):
        find_experiment("lenet-300", "quick")
