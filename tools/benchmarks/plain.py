"""MVAE as the originals write it: one forward pass of both encoders and both decoders for each ELBO term."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.data import Batch
from common.models import MultimodalVAE
from multimnist.data import LENGTH, SOS
from multimnist.model import TextDecoder, TextEncoder
from tools.benchmarks.plain_faces import as_written

LAMBDA_IMAGE, LAMBDA_TEXT = 1.0, 50.0


class StringEncoder(nn.Module):
    """A GRU over all characters in both directions; only the outputs at the last character are used."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.embed, self.heads = encoder.embedding, encoder.heads
        self.gru = nn.GRU(encoder.forwards.input_size, encoder.forwards.hidden_size, bidirectional=True)
        backwards = {f"{name}_reverse": x for name, x in encoder.backwards.state_dict().items()}
        self.gru.load_state_dict(encoder.forwards.state_dict() | backwards)

    def forward(self, text: Tensor) -> tuple[Tensor, ...]:
        outputs, _ = self.gru(self.embed(text).transpose(0, 1))
        return self.heads(sum(outputs[-1].chunk(2, dim=1)))


class StringDecoder(nn.Module):
    """Decodes character by character, and feeds back the most likely one."""

    def __init__(self, decoder: TextDecoder) -> None:
        super().__init__()
        self.embed, self.z2h, self.h2o = decoder.embedding, decoder.start, decoder.output
        self.gru = nn.GRU(decoder.gru.input_size, decoder.gru.hidden_size, 2, dropout=0.1)
        self.gru.load_state_dict(decoder.gru.state_dict())

    def forward(self, z: Tensor) -> Tensor:
        words = z.new_zeros(len(z), LENGTH, self.h2o.out_features)
        character, h = torch.full_like(z[:, 0], SOS, dtype=torch.long), self.z2h(z).unsqueeze(0).repeat(2, 1, 1)
        for i in range(LENGTH):
            x = torch.cat([F.silu(self.embed(character)), z], dim=1)
            out, h = self.gru(x.unsqueeze(0), h)
            words[:, i] = self.h2o(torch.cat([out.squeeze(0), z], dim=1))
            character = F.log_softmax(words[:, i], dim=1).max(dim=1)[1]
        return words


class Plain(nn.Module):
    """The authors' forward pass on a copy of a model: experts, product, sample, and both decoders."""

    def __init__(self, model: MultimodalVAE) -> None:
        super().__init__()
        model = as_written(model)
        self.encoder, self.decoder, self.n_latents = model.encoder, model.decoder, model.latent_dim
        if isinstance(self.encoder["text"], TextEncoder):
            self.encoder["text"] = StringEncoder(self.encoder["text"])
            self.decoder["text"] = StringDecoder(self.decoder["text"])
        else:  # the authors encode the label of each example, we encode each class once
            self.encoder["text"] = nn.Sequential(*self.encoder["text"])
        self.to(next(model.parameters()).device)

    def forward(self, image: Tensor | None, text: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        given = image if image is not None else text
        prior = torch.zeros(len(given), self.n_latents, device=given.device)
        mus, variances = [prior], [torch.ones_like(prior)]
        for name, x in (("image", image), ("text", text)):
            if x is not None:
                mu, logvar = self.encoder[name](x)
                mus.append(mu)
                variances.append(logvar.exp() + 1e-8)
        mu, variance = torch.stack(mus), torch.stack(variances)
        precision = 1 / (variance + 1e-8)
        mu, logvar = (mu * precision).sum(dim=0) / precision.sum(dim=0), (1 / precision.sum(dim=0) + 1e-8).log()
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.decoder["image"](z), self.decoder["text"](z), mu, logvar

    def elbo_loss(self, image: Tensor | None, text: Tensor | None, beta: float) -> Tensor:
        """The mean negative ELBO of a batch; an absent modality is None."""
        image_logits, text_logits, mu, logvar = self(image, text)
        loss = -0.5 * beta * (1 + logvar - mu**2 - logvar.exp()).sum(dim=1)
        if image is not None:
            x, y = image_logits.flatten(1), image.flatten(1)
            loss = loss + LAMBDA_IMAGE * (x.clamp(min=0) - x * y + (1 + (-x.abs()).exp()).log()).sum(dim=1)
        if text is not None:
            one_hot = F.one_hot(text, text_logits.shape[-1])
            log_p = one_hot * F.log_softmax(text_logits + 1e-8, dim=-1)
            loss = loss - LAMBDA_TEXT * log_p.flatten(1).sum(dim=1)
        return loss.mean()

    def loss(self, image: Tensor, text: Tensor, beta: float) -> Tensor:
        """The sum of the losses of both modalities, and of each alone."""
        return sum(self.elbo_loss(*given, beta) for given in ((image, text), (image, None), (None, text)))


def training_step(model: MultimodalVAE) -> Callable[[Batch], None]:
    """The authors' training step on a copy of the model."""
    plain = Plain(model)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3, foreach=False)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        loss = plain.loss(**batch.modalities, beta=0.5)
        loss.backward()
        optimizer.step()
        loss.item()

    return step
