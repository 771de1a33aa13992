"""Pairs of solvers that differ in one field, with another outcome each."""

SOURCE = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 2 } data_filler { value: 0.5 } data_filler { value: 1 } } }
"""
HEAD = """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {
  num_output: 3 weight_filler { value: 0.2 } bias_filler { value: 0.1 } } }
layer { name: "scores" type: "InnerProduct" bottom: "ip" top: "scores" inner_product_param {
  num_output: 2 weight_filler { value: 0.3 } bias_filler { value: -0.1 } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }'


def bent(rules: str) -> str:
    """A layer that changes every outcome, in the net by its rules."""
    return f'layer {{ name: "bent" type: "TanH" bottom: "ip" top: "ip" {rules} }}'


def net(rules: str | None = None, state: str = "") -> str:
    middle = "" if rules is None else bent(rules)
    ip, scores = HEAD.split('layer { name: "scores"')
    return f'{state} {SOURCE} {ip} {middle} layer {{ name: "scores"{scores} {LOSS}'


def with_specs(*specs: str) -> str:
    """The plain net with a `param` of `scores` for each of its blobs."""
    said = " ".join(f"param {{ {spec} }}" for spec in specs)
    return PLAIN.replace('top: "scores"', f'top: "scores" {said}', 1)


def in_v1(text: str) -> str:
    """A net in the form that layers had before today's."""
    for name, old in (
        ("DummyData", "DUMMY_DATA"),
        ("InnerProduct", "INNER_PRODUCT"),
        ("SoftmaxWithLoss", "SOFTMAX_LOSS"),
        ("TanH", "TANH"),
    ):
        text = text.replace(f'type: "{name}"', f"type: {old}")
    return text.replace("layer {", "layers {")


def fed(inputs: str) -> str:
    """The plain net on inputs that nobody fills: zeros. The bias alone learns."""
    return f"{inputs} {HEAD} {LOSS}"


def sharing(spec: str) -> str:
    """A net of a Bias and an InnerProduct of as many weights, in another shape."""
    bias = f"""layer {{ name: "bias" type: "Bias" bottom: "data" top: "biased" {spec}
      bias_param {{ axis: 0 num_axes: -1 filler {{ value: 0.4 }} }} }}"""
    ip, scores = HEAD.split('layer { name: "scores"')
    ip = ip.replace('bottom: "data"', 'bottom: "biased"')
    scores = scores.replace('top: "scores"', f'top: "scores" {spec}')
    scores = scores.replace("num_output", "transpose: true num_output")
    return f'{SOURCE} {bias} {ip} layer {{ name: "scores"{scores} {LOSS}'


def normalized(rules: str) -> str:
    """A net with a BatchNorm, by statistics of the batch or those that it keeps, 0."""
    norm = f"""layer {{ name: "norm" type: "BatchNorm" bottom: "data" top: "norm" {rules}
      batch_norm_param {{ eps: 1 }} }}"""
    head = HEAD.replace('bottom: "data"', 'bottom: "norm"')
    return f"{SOURCE} {norm} {head} {LOSS}"


PLAIN, BENT = net(), net("")
DEEP = net('include { stage: "deep" }')
BASE = 'base_lr: 0.1 lr_policy: "fixed" '
NET = 'net: "plain.prototxt" '
ADAGRAD = 'net: "plain.prototxt" base_lr: 0.1 lr_policy: "fixed" type: "AdaGrad" '
TESTED = "test_iter: 1 test_interval: 9 " + BASE
DEEP_NET = 'net: "deep.prototxt" '
BENT_NET = 'net: "bent.prototxt" ' + BASE

TWINS: dict[str, tuple[str, str]] = {
    "random_seed": (
        'net: "drawn.prototxt" random_seed: 1 ' + BASE,
        'net: "drawn.prototxt" random_seed: 2 ' + BASE,
    ),
    "weights": (NET + BASE, NET + 'weights: "trained.caffemodel" ' + BASE),
    "test_iter": (NET + BASE, NET + TESTED),
    "base_lr": (NET + BASE, NET + 'base_lr: 0.3 lr_policy: "fixed"'),
    "lr_policy": (
        NET + 'base_lr: 0.1 lr_policy: "fixed" gamma: 0.5 stepsize: 2',
        NET + 'base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 2',
    ),
    "gamma": (
        NET + 'base_lr: 0.1 lr_policy: "exp" gamma: 0.5',
        NET + 'base_lr: 0.1 lr_policy: "exp" gamma: 0.9',
    ),
    "power": (
        NET + 'base_lr: 0.1 lr_policy: "poly" power: 1',
        NET + 'base_lr: 0.1 lr_policy: "poly" power: 2',
    ),
    "stepsize": (
        NET + 'base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 1',
        NET + 'base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 3',
    ),
    "stepvalue": (
        NET + 'base_lr: 0.1 lr_policy: "multistep" gamma: 0.5 stepvalue: 1',
        NET + 'base_lr: 0.1 lr_policy: "multistep" gamma: 0.5 stepvalue: 1 stepvalue: 2',
    ),
    "max_iter": (NET + BASE, NET + BASE + "max_iter: 3"),
    "momentum": (NET + BASE, NET + BASE + "momentum: 0.9"),
    "weight_decay": (NET + BASE, NET + BASE + "weight_decay: 0.5"),
    "regularization_type": (
        NET + BASE + "weight_decay: 0.5",
        NET + BASE + 'weight_decay: 0.5 regularization_type: "L1"',
    ),
    "clip_gradients": (NET + BASE, NET + BASE + "clip_gradients: 0.01"),
    "iter_size": (
        NET + BASE + "clip_gradients: 0.01",
        NET + BASE + "clip_gradients: 0.01 iter_size: 2",
    ),
    "type": (NET + BASE, ADAGRAD),
    "solver_type": (NET + BASE, NET + BASE + "solver_type: ADAGRAD"),
    "delta": (ADAGRAD, ADAGRAD + "delta: 1"),
    "rms_decay": (
        NET + BASE + 'type: "RMSProp" rms_decay: 0.5',
        NET + BASE + 'type: "RMSProp" rms_decay: 0.9',
    ),
    "momentum2": (
        NET + BASE + 'type: "Adam" momentum: 0.9 momentum2: 0.9',
        NET + BASE + 'type: "Adam" momentum: 0.9 momentum2: 0.999',
    ),
    "net": (NET + BASE, 'net: "bent.prototxt" ' + BASE),
    "net_param": (f"net_param {{ {PLAIN} }} {BASE}", f"net_param {{ {BENT} }} {BASE}"),
    "train_net": ('train_net: "plain.prototxt" ' + BASE, 'train_net: "bent.prototxt" ' + BASE),
    "train_net_param": (
        f"train_net_param {{ {PLAIN} }} {BASE}",
        f"train_net_param {{ {BENT} }} {BASE}",
    ),
    "test_net": (
        'train_net: "plain.prototxt" test_net: "plain.prototxt" ' + TESTED,
        'train_net: "plain.prototxt" test_net: "bent.prototxt" ' + TESTED,
    ),
    "test_net_param": (
        f'train_net: "plain.prototxt" test_net_param {{ {PLAIN} }} {TESTED}',
        f'train_net: "plain.prototxt" test_net_param {{ {BENT} }} {TESTED}',
    ),
    "train_state": (DEEP_NET + BASE, DEEP_NET + BASE + 'train_state { stage: "deep" }'),
    "test_state": (DEEP_NET + TESTED, DEEP_NET + TESTED + 'test_state { stage: "deep" }'),
    "NetParameter.layer": (NET + BASE, BENT_NET),
    "NetParameter.layers": (
        'net: "plain_v1.prototxt" ' + BASE,
        'net: "bent_v1.prototxt" ' + BASE,
    ),
    "NetParameter.input": (NET + BASE, 'net: "fed.prototxt" ' + BASE),
    "NetParameter.input_dim": (
        'net: "fed.prototxt" ' + BASE,
        'net: "fed_wider.prototxt" ' + BASE,
    ),
    "NetParameter.input_shape": (
        'net: "fed_by_shape.prototxt" ' + BASE,
        'net: "fed_by_wider_shape.prototxt" ' + BASE,
    ),
    "NetParameter.force_backward": (  # gradients of what does not learn count in the clipping
        'net: "frozen.prototxt" clip_gradients: 0.01 ' + BASE,
        'net: "frozen_forced.prototxt" clip_gradients: 0.01 ' + BASE,
    ),
    "NetParameter.state": (DEEP_NET + BASE, 'net: "deep_state.prototxt" ' + BASE),
    "NetState.stage": (
        DEEP_NET + BASE + 'train_state { stage: "other" }',
        DEEP_NET + BASE + 'train_state { stage: "deep" }',
    ),
    "NetState.level": (
        'net: "from_level_2.prototxt" ' + BASE + "train_state { level: 1 }",
        'net: "from_level_2.prototxt" ' + BASE + "train_state { level: 2 }",
    ),
    "NetStateRule.phase": (
        'net: "in_training.prototxt" ' + TESTED,
        'net: "in_tests.prototxt" ' + TESTED,
    ),
    "NetStateRule.min_level": (
        'net: "from_level_0.prototxt" ' + BASE,
        'net: "from_level_2.prototxt" ' + BASE,
    ),
    "NetStateRule.max_level": (
        'net: "to_level_0.prototxt" ' + BASE,
        'net: "to_level_-1.prototxt" ' + BASE,
    ),
    "NetStateRule.stage": (BENT_NET, DEEP_NET + BASE),
    "NetStateRule.not_stage": (
        'net: "not_deep.prototxt" ' + BASE,
        'net: "not_deep.prototxt" ' + BASE + 'train_state { stage: "deep" }',
    ),
    "ParamSpec.name": (
        'net: "apart.prototxt" ' + BASE,
        'net: "shared.prototxt" ' + BASE,
    ),
    "ParamSpec.lr_mult": (NET + BASE, 'net: "slow.prototxt" ' + BASE),
    "ParamSpec.decay_mult": (
        NET + "weight_decay: 0.5 " + BASE,
        'net: "decaying.prototxt" weight_decay: 0.5 ' + BASE,
    ),
    "LayerParameter.param": (NET + BASE, 'net: "slow.prototxt" ' + BASE),
    "LayerParameter.loss_weight": (NET + BASE, 'net: "light.prototxt" ' + BASE),
    "LayerParameter.propagate_down": (NET + BASE, 'net: "cut.prototxt" ' + BASE),
    "LayerParameter.phase": (
        'net: "normalized.prototxt" ' + BASE,
        'net: "normalized_in_test.prototxt" ' + BASE,
    ),
    "LayerParameter.include": (BENT_NET, 'net: "in_tests.prototxt" ' + BASE),
    "LayerParameter.exclude": (BENT_NET, 'net: "not_in_training.prototxt" ' + BASE),
}
REFUSED_TWINS: dict[str, tuple[str, str]] = {
    "ParamSpec.share_mode": (
        'net: "shared.prototxt" ' + BASE,
        'net: "strict.prototxt" ' + BASE,
    ),
}
"""As `TWINS`, but for the second Caffe aborts."""


def learning_before(layer: str, shape: str, name: str) -> str:
    """A net that learns before its scores, whose weights stand in a file."""
    source = f"""layer {{ name: "data" type: "DummyData" top: "data" top: "label"
      dummy_data_param {{ shape {{ dim: {shape} }} shape {{ dim: {shape[1]} }}
      data_filler {{ value: 0.5 }} data_filler {{ value: 1 }} }} }}"""
    scores = f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "scores"
      inner_product_param {{ num_output: 2 }} }}"""
    return f"{source} {layer} {scores} {LOSS}"


def scale(settings: str) -> str:
    return f"""layer {{ name: "scale" type: "Scale" bottom: "data" top: "x"
      scale_param {{ bias_term: true {settings} }} }}"""


_ADDED = """layer { name: "own" type: "Parameter" top: "own"
  parameter_param { shape { dim: [2, 3] } } }
layer { name: "sum" type: "Eltwise" bottom: "data" bottom: "own" top: "x" }"""
PASSES = {
    "scale_of_many": learning_before(scale(""), "[2, 3]", "three"),
    "scale_of_one_image": learning_before(scale(""), "[1, 3, 2]", "six"),
    "scale_of_each_value": learning_before(scale("axis: 0 num_axes: -1"), "[2, 3]", "three"),
    "scale_of_all": learning_before(scale("num_axes: 0"), "[1, 3, 2]", "six"),
    "parameter": learning_before(_ADDED, "[2, 3]", "three"),
}
"""Nets whose layers Caffe adds gradients up for, over the passes of an iteration, or does not."""

SCHEDULES: dict[str, tuple[str, str]] = {
    "test_interval": (NET + TESTED, NET + "test_iter: 1 test_interval: 2 " + BASE),
    "test_initialization": (NET + TESTED, NET + "test_initialization: false " + TESTED),
    "snapshot": (NET + BASE + "snapshot: 2", NET + BASE + "snapshot: 3"),
}
"""Twins that differ in when something is done."""

NETS = {
    "plain": PLAIN,
    "bent": BENT,
    "plain_v1": in_v1(PLAIN),
    "bent_v1": in_v1(BENT),
    "drawn": PLAIN.replace("{ value: 0.2 }", '{ type: "gaussian" }'),
    "fed": fed('input: "data" input: "label" input_dim: [2, 3, 1, 1, 2, 1, 1, 1]'),
    "fed_wider": fed('input: "data" input: "label" input_dim: [2, 5, 1, 1, 2, 1, 1, 1]'),
    "fed_by_shape": fed(
        'input: "data" input: "label" input_shape { dim: [2, 3] } input_shape { dim: 2 }'
    ),
    "fed_by_wider_shape": fed(
        'input: "data" input: "label" input_shape { dim: [2, 5] } input_shape { dim: 2 }'
    ),
    "frozen": with_specs("", "lr_mult: 0"),
    "frozen_forced": "force_backward: true " + with_specs("", "lr_mult: 0"),
    "light": PLAIN.replace('top: "loss"', 'top: "loss" loss_weight: 0.5'),
    "cut": PLAIN.replace('top: "loss"', 'top: "loss" propagate_down: [false, false]'),
    "normalized": normalized(""),
    "normalized_in_test": normalized("phase: TEST"),
    "by_batch": normalized("").replace("eps: 1", "eps: 1 use_global_stats: false"),
    "slow": with_specs("lr_mult: 0.1"),
    "decaying": with_specs("decay_mult: 2"),
    "apart": sharing(""),
    "shared": sharing('param { name: "both" share_mode: PERMISSIVE }'),
    "strict": sharing('param { name: "both" }'),
    "deep": DEEP,
    "deep_state": net('include { stage: "deep" }', 'state { stage: "deep" }'),
    "from_level_0": net("include { min_level: 0 }"),
    "from_level_2": net("include { min_level: 2 }"),
    "to_level_0": net("include { max_level: 0 }"),
    "to_level_-1": net("include { max_level: -1 }"),
    "not_deep": net('include { not_stage: "deep" }'),
    "in_training": net("include { phase: TRAIN }"),
    "in_tests": net("include { phase: TEST }"),
    "not_in_training": net("exclude { phase: TRAIN }"),
}
