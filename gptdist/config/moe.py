"""Mixture of experts: layers whose feed-forward part is many, of which each token takes a few."""

from gptdist.config.section import Section


class MoeConfig(Section):
    """Experts in place of feed-forward layers; no token is ever dropped.

    A router gives each token a softmax over the experts; the best ``experts_per_token`` of them see the token, and
    their outputs are added up, each times its weight.
    """

    num_experts: int
    """Experts of a layer."""

    experts_per_token: int = 2
    """Of which each token takes the best so many."""

    ffn_hidden_size: int | None = None
    """Width of one expert; default that of a dense feed-forward layer."""

    normalize_weights: bool = True
    """Whether the weights of a token's experts are made to add up to 1 (Mixtral, Qwen 3); otherwise they stay what the
    softmax over all experts gave (OLMoE)."""

    every_n_layers: int = 1
    """Every n-th layer has experts, beginning with the n-th; the others are dense."""

    aux_loss: float = 0.01
    """Coefficient of the load-balancing loss, which is 1 where tokens and probabilities are spread evenly. It is in
    the gradient, not in the loss that is shown."""

    router_z_loss: float = 0.0
    """Coefficient of mean(log(sum of exp(router logits))^2), in the gradient alone too; 1e-3 is usual."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        sizes = {"num_experts": self.num_experts, "every_n_layers": self.every_n_layers}
        if self.ffn_hidden_size is not None:
            sizes["ffn_hidden_size"] = self.ffn_hidden_size
        bad = [f"model.moe.{name}: must be at least 1, got {value}" for name, value in sizes.items() if value < 1]
        if not 1 <= self.experts_per_token <= max(self.num_experts, 1):
            bad.append(
                f"model.moe.experts_per_token: must be from 1 to num_experts ({self.num_experts}), "
                f"got {self.experts_per_token}"
            )
        bad += [
            f"model.moe.{name}: must be at least 0, got {getattr(self, name)}"
            for name in ("aux_loss", "router_z_loss")
            if getattr(self, name) < 0.0
        ]
        return bad
