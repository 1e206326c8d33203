"""Compiled layers on a GPU: seconds to compile, recompilations, ms of a recorded step, error, kernels.

python3 .gpu/exp2.py main            # (a) to (e); within 90 s
python3 .gpu/exp2.py variants        # other ways to attend, each compiled anew
Here: DEV=cpu LAYERS=2 python .gpu/exp2.py main
"""
import logging, os, sys, time
from pathlib import Path
BEGAN = time.time()
sys.path.insert(0, str(Path(__file__).parent))
import torch, transformers
import torch.nn.functional as F
import exp
from exp import DEV, LAYERS, sync
from tabml.text._torch import compiled
from tabml.text._torch.cache import SlotCache
from tabml.text._torch.engine import TorchEngine
from tabml.text._torch.steps import Steps, cuda_recorder
logging.basicConfig(level=logging.WARNING)
CUDA = DEV == "cuda"
SHAPES = [(2, 256), (2, 1024), (8, 256), (64, 256), (64, 1024), (2, 4096)] if CUDA else [(2, 256), (4, 384), (8, 512)]
PROFILED = [(2, 256), (64, 1024)] if CUDA else [(2, 256)]
TOK = None
RAN = [0]
def counting(gm, inputs):
    f = torch._dynamo.lookup_backend(os.environ.get("BACKEND", "inductor"))(gm, inputs)
    def run(*a):
        RAN[0] += 1
        return f(*a)
    return run
compiled.BACKEND = counting

def engine(dtype):
    global TOK
    m = transformers.AutoModelForCausalLM.from_pretrained("/tmp/m/smol", dtype=dtype).eval().to(DEV)
    TOK = TOK or transformers.AutoTokenizer.from_pretrained("/tmp/m/smol")
    t0 = time.perf_counter()
    e = TorchEngine(m, TOK, static=True, compiled=True)
    ok = e.packed.wait(200)
    print(f"(a) compiled in {time.perf_counter() - t0 - 0.25:.1f} s, {dtype}: done {ok}, used {e._layer_run is not None}, problem {e._compiled._problem!r:.2000}", flush=True)
    return e

def filled(e, rows, span, record, layer_run):
    """Steps with a cache of random keys and values; the same for each call with the same shape."""
    c = e._model.config
    d = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    slots = SlotCache(LAYERS, 8192)
    steps = Steps(e._scores, slots, e._device, most_tokens=8192, recorder=(lambda: cuda_recorder(e._device)) if record and CUDA else None, layer_run=layer_run)
    e._slots = slots
    for _ in range(rows): slots.add_slot()
    slots.lengths[:] = [span - 60 - r % 7 for r in range(rows)]
    slots.reserve(span)
    g = torch.Generator().manual_seed(1)
    noise = [torch.randn((1, c.num_key_value_heads, slots._capacity, d), generator=g).to(DEV) for _ in range(2)]
    for layer in range(LAYERS):
        like = torch.zeros((1, c.num_key_value_heads, 1, d), dtype=e._model.dtype, device=DEV)
        k, v = slots._tensors(like, like, layer)
        for row in range(rows):
            k[row], v[row] = noise[0][0].roll(7 * row + layer, 1), noise[1][0].roll(5 * row + layer, 1)
    slots._written[:] = list(slots.lengths)
    return steps

def step_ms(e, rows, span, layer_run, n=50):
    with torch.inference_mode():
        steps = filled(e, rows, span, True, layer_run)
        RAN[0] = 0
        for at in range(4): step = steps.begin([5 + r % 90 for r in range(rows)]); step.best(); ran = RAN[0] if at == 0 else ran
        sync(); t = []
        for _ in range(5 if CUDA else 1):
            sync(); t0 = time.perf_counter()
            for _ in range(n // 5): steps._computed(step.rows, step.span)
            sync(); t.append((time.perf_counter() - t0) / (n // 5) * 1e3)
        return sorted(t)[len(t) // 2], ran, bool(steps._recorded)

def one_step(e, rows, span, layer_run):
    with torch.inference_mode():
        step = filled(e, rows, span, False, layer_run).begin([5 + r % 90 for r in range(rows)])
        return step.scores[:rows].float().clone()

def off(a, b): return float((a - b).norm() / b.norm())

def profile(e, rows, span, layer_run, name):
    from torch.profiler import ProfilerActivity, profile
    with torch.inference_mode():
        steps = filled(e, rows, span, False, layer_run)
        tokens = [5 + r % 90 for r in range(rows)]
        steps.begin(tokens); sync()
        with profile(activities=[ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if CUDA else [])) as p:
            steps.begin(tokens); sync()
    ev = [a for a in p.key_averages() if str(a.device_type).endswith("CUDA")] if CUDA else [a for a in p.key_averages() if a.self_cpu_time_total]
    spent = (lambda a: a.self_device_time_total) if CUDA else (lambda a: a.self_cpu_time_total)
    print(f"(e) {name} rows {rows} span {span}: {sum(a.count for a in ev)} kernels in {sum(map(spent, ev)) / 1e3:.3f} ms, {sum(a.count for a in ev) / LAYERS:.1f} a layer")
    for a in sorted(ev, key=lambda a: -spent(a))[:18 if CUDA else 5]:
        print(f"   {spent(a):8.0f} us {a.count:5d} {a.key[:120]}")
    sys.stdout.flush()

def report(e, profiled=PROFILED, base=True):
    if base and CUDA: print(f"(c) as it is, rows 1 span 256: {step_ms(e, 1, 256, None)[0]:.3f} ms", flush=True)
    for rows, span in SHAPES:
        plain = f"{step_ms(e, rows, span, None)[0]:.3f} ms, compiled" if base else ""
        ms, ran, recorded = step_ms(e, rows, span, e._layer_run)
        print(f"(b, c) rows {rows} span {span}: {plain} {ms:.3f} ms, recorded {recorded}, compiled layers {ran} of {LAYERS}, compilations {len(e._compiled.compilations)}", flush=True)
    for rows, span in profiled: profile(e, rows, span, e._layer_run, "compiled")

def main_part():
    e = engine(torch.bfloat16)
    run = e._layer_run
    report(e)
    shapes = [SHAPES[0], SHAPES[-2]]
    half = {s: (one_step(e, *s, None), one_step(e, *s, run)) for s in shapes}
    profile(e, *PROFILED[0], None, "as it is")
    e.close()
    e = engine(torch.float32)
    for s in shapes:
        want, found = one_step(e, *s, None), one_step(e, *s, e._layer_run)
        print(f"(d) {s}: compiled against not: float32 {off(found, want):.1e}, bfloat16 {off(half[s][1], half[s][0]):.1e}; bfloat16 against float32: as it is {off(half[s][0], want):.1e}, compiled {off(half[s][1], want):.1e}; same best tokens {float((half[s][0].argmax(-1) == want.argmax(-1)).float().mean()):.2f} and {float((half[s][1].argmax(-1) == want.argmax(-1)).float().mean()):.2f}", flush=True)
    e.close()

def grouped(kind):
    def attend(module, q, k, v, mask, dropout=0.0, scaling=None, is_causal=None, **o):
        if q.shape[2] != 1 or mask is None or not torch.compiler.is_compiling():
            return compiled.sdpa_attention_forward(module, q, k, v, mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **o)
        B, H, _, D = q.shape; KV = k.shape[1]; G = H // KV
        q = q.reshape(B, KV, G, D)
        if kind == "sdpa":
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.expand(B, 1, G, mask.shape[-1]), scale=scaling)
        else:  # sums: reductions that inductor fuses with what is around them, all in float32
            s = (q[:, :, :, None].float() * k[:, :, None].float()).sum(-1) * scaling
            s = s.masked_fill(~mask, torch.finfo(torch.float32).min).softmax(-1)
            if kind == "sums": x = (s[..., None] * v[:, :, None].float()).sum(-2).to(q.dtype)
            else: x = s.to(v.dtype) @ v
        return x.reshape(B, 1, H, D), None
    return attend

def variants_part():
    for kind in ("sdpa", "sums", "sums then product"):
        compiled._attend = grouped(kind)
        e = engine(torch.bfloat16)
        print("==", kind, flush=True)
        if e._layer_run: report(e, PROFILED, False)
        e.close()

if __name__ == "__main__":
    if not Path("/tmp/m/smol/model.safetensors").exists():
        exp.make(".gpu/smol", "/tmp/m/smol", transformers.AutoModelForCausalLM)
    for part in sys.argv[1:]:
        try: globals()[part + "_part"]()
        except Exception: import traceback; traceback.print_exc(limit=-6)
        print(f"== {part} {time.time() - BEGAN:.0f} s", flush=True)
