# %% [markdown]
# # What flows through the skips
#
# Train a small network with skips between all of its stages in a plain PyTorch loop, then see how much each skip
# contributes where it arrives, and what the network does without it.

# %%
import altair as alt
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import hiresnet_graph as hrg
from hiresnet_graph.analysis import ProbedNetwork, lesion, measure_contributions

net = hrg.load("hiresnet18").override({"width": 8, "input.channels": 1, "input.height": 8, "input.width": 8})
net

# %% [markdown]
# That was the network, drawn. Its edges are an expression, and every change gives a new network:

# %%
for edges in ["none", "full", "in", "out", "full - p1"]:
    print(f"{edges:10}{net.with_edges(edges).cost().parameters:>8,} parameters")

# %% [markdown]
# ## Train it
#
# `build` gives an ordinary module, so any training loop will do.

# %%
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
model = net.build(seed=0)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
order = torch.Generator().manual_seed(0)
for _ in range(3):
    for batch in torch.randperm(1400, generator=order).split(100):
        optimizer.zero_grad()
        cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
test_images, test_labels = images[1400:], labels[1400:]
accuracy = (model.eval()(test_images).argmax(1) == test_labels).float().mean().item()
print(f"{accuracy:.0%} of the test images are right")

# %% [markdown]
# ## What arrives
#
# The share of each value in the sum at the end of a stage, by mean absolute activation.

# %%
probed = ProbedNetwork(net, model)
with torch.no_grad():
    found = [one for one in measure_contributions(probed, [test_images]) if one.slot == "output"]
shares = [{"target": one.target, "value": one.edge, "kind": one.kind, "share": one.share} for one in found]
chart = alt.Chart(alt.InlineData(shares)).mark_bar()
chart.encode(
    alt.X("share:Q").axis(tickCount=7).title("share of the sum"),
    alt.Y("value:N").title(None).sort("-x"),
    alt.Color("kind:N").title(None).scale(range=["#999999", "#0072b2"]),
    alt.Row("target:N").title(None).header(labelAngle=0, labelAlign="left"),
).resolve_scale(y="independent").properties(width=420)

# %% [markdown]
# ## What it is good for
#
# A large value need not matter. A lesion replaces the values of an edge by zeros, without training again.

# %%
skips = ["stem>stage1", "stage1>stage2", "stem>stage2", "stage2>stage3", "stage1>stage3", "stem>stage3"]
sets = [(), *(probed.select(skip) for skip in skips)]
with torch.no_grad():
    intact, *without = lesion(probed, lambda: [(test_images, test_labels)], sets)
losses = [{"skip": skip, "points": 100 * (value - intact)} for skip, value in zip(skips, without, strict=True)]
alt.Chart(alt.InlineData(losses)).mark_bar(color="#d55e00").encode(
    alt.X("points:Q").axis(tickCount=7).title("accuracy without it, minus intact, in points"),
    alt.Y("skip:N").title(None).sort(None),
).properties(width=420)

# %% [markdown]
# One network from one seed says little: `hrg analyze lesion` takes a whole study, with the spread over seeds.
