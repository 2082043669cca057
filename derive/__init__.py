"""derive: from a learning rule and a network to kernels and mean-field equations, symbolically.

`from derive import *` brings everything a session at the prompt needs:

    >>> from derive import *
    >>> kernel = lazy_kernel(FA(rho), MLP(depth=2, activation="relu"))
    >>> kernel.expr, kernel.derivation(), kernel.latex(), kernel.source()
"""

from types import ModuleType

from sympy import (
    Abs,
    Eq,
    Heaviside,
    Matrix,
    Max,
    Min,
    Piecewise,
    Rational,
    Symbol,
    cos,
    cosh,
    erf,
    exp,
    expand,
    factor,
    log,
    oo,
    pi,
    sign,
    simplify,
    sin,
    sinh,
    sqrt,
    tanh,
)

from .activations import (
    BUILTIN,
    Activation,
    activation,
    elu,
    gelu,
    hard_tanh,
    hermite,
    leaky_relu,
    mish,
    normal_cdf,
    relu,
    sigmoid,
    silu,
    softplus,
    step,
)
from .alignment import AlignmentTheory, alignment_theory
from .conservation import ConservationLaws, conservation_laws
from .conservation_infinite import InfiniteWidthLaw, at_infinite_width
from .cotraining import BatchNoise, CoTraining
from .deep_linear import DeepLinear, deep_linear, gradient_alignment_bound, label_noise
from .derivation import Derivation, Step
from .dmft import DMFTEquations, dmft_equations
from .errors import BadInput, DeriveError, NoClosedForm
from .evolution import Evolution
from .evolving import EvolvingFeedback
from .expansion import SmallFeatureExpansion, small_feature_expansion
from .feedback import (
    activation_alignment,
    backpropagation,
    entrywise_feedback,
    feedback_alignment,
    information_alignment,
    kolen_pollack,
    sign_concordant,
    symmetric_alignment,
    weight_mirror,
)
from .gaussian import Expectation, covariance, expectation
from .lazy import LazyKernel, lazy_kernel
from .linear import LinearEquations
from .loss import Loss
from .network import MLP
from .online_limits import EarlyTime, LinearOnline, early_time, linear_online
from .primitives import LocalLayer, Regulariser, amp, decay, null, self_feedback, sparse, tied_gradient
from .rules import DFA, FA, GD, GLN, BoundRule, Feedback, Hebb, Rule
from .scalar import ScalarReduction, scalar_reduction
from .symbols import (
    Delta,
    K_mumu,
    K_munu,
    K_nunu,
    W,
    a,
    alpha,
    b,
    beta,
    c,
    ddphi,
    dphi,
    eta,
    f,
    g_tilde,
    gamma0,
    h,
    kappa,
    lam,
    log_Z,
    m,
    omega,
    phi,
    rho,
    s,
    sigma_b,
    sigma_w,
    u,
    v,
    w,
    x,
    y,
    z,
)
from .teacher_student import TeacherStudent, teacher_student
from .training import Training
from .two_layer import TwoLayerModes, two_layer_modes

__all__ = [name for name, value in list(globals().items()) if not name.startswith("_") and not isinstance(value, ModuleType)]
__version__ = "0.1.0"
