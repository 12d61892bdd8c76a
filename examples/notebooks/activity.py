# %% [markdown]
# # When activity arrives
#
# A model of four visual areas with lateral and feedback connections, in two versions with the same weights: all
# connections take a step (*biological*), or only those that close a loop (*engineering*). At which step does each area
# begin to respond to an image, and how does its response develop?

# %%
import altair as alt
import torch
from sklearn.datasets import load_digits

import hiresnet_graph as hrg

AREAS = ["V1", "V2", "V4", "IT"]
small = hrg.load("blt").override({"width": 8, "size": 16, "steps": 9, "input.channels": 1, "time.readout": "all"})
small.variant("biological")

# %% [markdown]
# Dashed connections take a step. Both versions compile to a module of straight-line code, and `features` reads the
# value of any node at any step that a readout depends on: V1 at step 5 reaches the head at step 8, so nine steps are
# compiled.

# %%
images = torch.tensor(load_digits().images[:100], dtype=torch.float32)[:, None] / 16
images = torch.nn.functional.interpolate(images, (16, 16))
responses = []
for version in ["engineering", "biological"]:
    model = hrg.create_model(small.variant(version)).eval()
    for delay, area in enumerate(AREAS):
        first = delay if version == "biological" else 0
        taps = [f"{area}@{step}" for step in range(first, 6)]
        with torch.no_grad():
            values = model.features(images, taps)
        for step, tap in enumerate(taps, first):
            response = values[tap].abs().mean().item()
            responses.append({"version": version, "area": area, "step": step, "response": response})
print(len(responses), "responses")

# %% [markdown]
# ## The response of each area over time
#
# With a delay on each connection, an area further from the input starts a step later; from then on, feedback and
# lateral connections change what it computes. The weights here are random; train the network to see what it makes of
# its time.

# %%
alt.Chart(alt.InlineData(responses)).mark_line(point=True).encode(
    alt.X("step:O").axis(labelAngle=0),
    alt.Y("response:Q").title("mean response"),
    alt.Color("area:N").sort(AREAS).title(None),
    alt.Column("version:N").sort(["engineering", "biological"]).title(None),
).properties(width=260, height=180)
