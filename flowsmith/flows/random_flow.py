"""Random flows of a domain, put together by hand: apart from the grammar, so that each can test the other."""

from random import Random

from flowsmith.flows.domain import Domain
from flowsmith.flows.flow import Flow, Link, Node, Value
from flowsmith.flows.roles import Role
from flowsmith.flows.schema import Schema
from flowsmith.flows.sizes import flow_sizes
from flowsmith.flows.stages import ADD, END, LEAVE, SHARED, STAGED, START, Stages

_TRIES = 1000


def random_flow(domain: Domain, schema: Schema, rng: Random) -> Flow:
    """Return a random valid flow of a domain over the core classes.

    Checkpoints, LoRAs and patches upon any of them, texts of either role upon any text encoder, a chain of
    sampling passes, some in two parts, with latent upscaling between some, decoding by any VAE, upscaling and
    sharpening, encoding and another chain: drawn piece by piece, thrown away and drawn anew if the whole
    breaks a bound.

    Args:
        domain: Over the core classes.
        schema: Restricted to the domain, as `Domain.restrict` and `Codec.schema` have it.
        rng: Source of all choices.

    Raises:
        RuntimeError: A thousand drafts in a row broke a bound.
    """
    for _ in range(_TRIES):
        draft = _Draft(domain, schema, rng)
        draft.draw()
        sizes = flow_sizes(draft.nodes, domain)
        if (
            sum(size.pixel_steps for size in sizes) > domain.max_pixel_steps
            or max(size.area for size in sizes) > domain.max_pixels
        ):
            continue
        draft.shuffle()
        flow = Flow.from_nodes(draft.nodes, schema)
        if not domain.issues(flow, schema):
            return flow
    raise RuntimeError(f"{_TRIES} random drafts in a row broke a bound of the domain; widen its bounds")


class _Draft:
    """A flow being put together."""

    def __init__(self, domain: Domain, schema: Schema, rng: Random) -> None:
        self.domain, self.schema, self.rng = domain, schema, rng
        self.nodes: list[Node] = []
        self.models: list[Link] = []
        self.positives: list[Link] = []
        self.negatives: list[Link] = []

    def draw(self) -> None:
        rng, most = self.rng, self.domain.classes
        loaders = [
            self.add("CheckpointLoaderSimple") for _ in range(rng.randint(1, most["CheckpointLoaderSimple"]))
        ]
        models, clips = [Link(p, 0) for p in loaders], [Link(p, 1) for p in loaders]
        for _ in range(rng.randint(0, most.get("LoraLoader", 0))):
            place = self.add("LoraLoader", model=rng.choice(models), clip=rng.choice(clips))
            models.append(Link(place, 0))
            clips.append(Link(place, 1))
        for _ in range(rng.randint(0, self.left("RescaleCFG"))):
            models.append(Link(self.add("RescaleCFG", model=rng.choice(models)), 0))
        for _ in range(rng.randint(0, self.left("CLIPSetLastLayer"))):
            clips.append(Link(self.add("CLIPSetLastLayer", clip=rng.choice(clips)), 0))
        self.models = models
        number = rng.randint(1, most["CLIPTextEncode"] - 1)
        self.positives = [self.text("positive", rng.choice(clips)) for _ in range(number)]
        number = rng.randint(1, most["CLIPTextEncode"] - number)
        self.negatives = [self.text("negative", rng.choice(clips)) for _ in range(number)]
        vaes = [Link(place, 2) for place in loaders] + [Link(p, 0) for p in self.some("VAELoader")]
        latent = self.passes(Link(self.add("EmptyLatentImage"), 0), first=True)
        image = Link(self.add("VAEDecode", samples=latent, vae=rng.choice(vaes)), 0)
        image = self.finish(image)
        while self.left("VAEEncode") and self.left("VAEDecode") and self.left("KSampler"):
            if rng.random() < 0.5:
                break
            latent = Link(self.add("VAEEncode", pixels=image, vae=rng.choice(vaes)), 0)
            latent = self.passes(latent, first=False)
            image = self.finish(Link(self.add("VAEDecode", samples=latent, vae=rng.choice(vaes)), 0))
        self.add("SaveImage", images=image)

    def passes(self, latent: Link, first: bool) -> Link:
        """Sample once or more; an empty latent, which is there ``first``, from full noise."""
        rng = self.rng
        for index in range(rng.randint(1, self.left("KSampler"))):
            while self.left("LatentUpscaleBy") and rng.random() < 0.3:
                latent = Link(self.add("LatentUpscaleBy", samples=latent), 0)
            empty = first and not index
            if self.left(STAGED) > 0 and rng.random() < 0.6:
                latent = self.parts(latent, empty)
            else:
                fixed: dict[str, Value | Link] = {"denoise": 1.0} if empty else {}
                latent = Link(self.add("KSampler", **self.conditioned(latent), **fixed), 0)
        return latent

    def parts(self, latent: Link, empty: bool) -> Link:
        """Sample a way in one part or, where the domain has two, in two."""
        rng, stages = self.rng, Stages(self.domain.values)
        steps = rng.choice(stages.steps)
        handovers = stages.handovers(steps)
        start = 0 if empty else rng.choice(stages.begins("whole", steps))
        fixed: dict[str, Value | Link] = {"steps": steps, ADD: "enable", START: start, LEAVE: "disable"}
        if "last" in stages.uses() and self.left(STAGED) > 1 and max(handovers, default=0) > start:
            stop = rng.choice([step for step in handovers if step > start])
            ends: dict[str, Value | Link] = {LEAVE: "enable", END: stop}
            place = self.add(STAGED, **self.conditioned(latent), **{**fixed, **ends})
            shared = {name: self.nodes[place].get(name) for name in SHARED}
            fixed |= {name: value for name, value in shared.items() if value is not None}
            fixed |= {ADD: "disable", START: stop}
            latent, start = Link(place, 0), stop
        fixed[END] = rng.choice(stages.stops("whole", steps, start))
        return Link(self.add(STAGED, **self.conditioned(latent), **fixed), 0)

    def conditioned(self, latent: Link) -> dict[str, Value | Link]:
        """Draw what a sampling node links to besides its latent."""
        rng = self.rng
        return {
            "model": rng.choice(self.models),
            "positive": rng.choice(self.positives),
            "negative": rng.choice(self.negatives),
            "latent_image": latent,
        }

    def finish(self, image: Link) -> Link:
        """Scale and sharpen an image, or leave it as it is."""
        rng = self.rng
        for _ in range(rng.randint(0, self.left("ImageScaleBy"))):
            image = Link(self.add("ImageScaleBy", image=image), 0)
        if self.left("ImageUpscaleWithModel") and rng.random() < 0.5:
            upscalers = [p for p, node in enumerate(self.nodes) if node.class_type == "UpscaleModelLoader"]
            if not upscalers or (self.left("UpscaleModelLoader") and rng.random() < 0.5):
                upscalers = [self.add("UpscaleModelLoader")]
            model = Link(rng.choice(upscalers), 0)
            image = Link(self.add("ImageUpscaleWithModel", upscale_model=model, image=image), 0)
        if self.left("ImageSharpen") and rng.random() < 0.5:
            image = Link(self.add("ImageSharpen", image=image), 0)
        return image

    def left(self, class_type: str) -> int:
        """Return how many more of a class the domain allows."""
        there = sum(node.class_type == class_type for node in self.nodes)
        return self.domain.classes.get(class_type, 0) - there

    def some(self, class_type: str) -> list[int]:
        """Add any number of nodes of a class without links that the domain allows."""
        return [self.add(class_type) for _ in range(self.rng.randint(0, self.left(class_type)))]

    def shuffle(self) -> None:
        self.rng.shuffle(order := list(range(len(self.nodes))))
        places = {old: new for new, old in enumerate(order)}
        self.nodes = [
            Node(
                n.class_type,
                tuple((k, Link(places[v.node], v.slot) if isinstance(v, Link) else v) for k, v in n.inputs),
            )
            for n in (self.nodes[old] for old in order)
        ]

    def text(self, role: Role, clip: Link) -> Link:
        return Link(self.add("CLIPTextEncode", text=self.rng.choice(self.domain.texts[role]), clip=clip), 0)

    def add(self, class_type: str, **given: Value | Link) -> int:
        inputs: list[tuple[str, Value | Link]] = []
        for spec in self.schema.nodes[class_type].flow_inputs:
            grid = self.domain.grid(class_type, spec)
            if spec.name in given:
                inputs.append((spec.name, given[spec.name]))
            elif grid:
                inputs.append((spec.name, self.rng.choice(grid)))
        self.nodes.append(Node(class_type, tuple(inputs)))
        return len(self.nodes) - 1
