//! What a tensor is for, in words that both families share.

use serde::Serialize;

/// What a tensor does in the forward pass; a bias is added to what the tensor of its name gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A vector for each token.
    TokenEmbedding,
    /// A vector for each position.
    PositionEmbedding,
    /// The norm before attention.
    AttentionNorm,
    /// Its bias.
    AttentionNormBias,
    /// Queries, keys and values in one matrix.
    Qkv,
    /// Their bias.
    QkvBias,
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// What attention adds to the residual stream.
    AttentionOutput,
    /// Its bias.
    AttentionOutputBias,
    /// The norm before the feed-forward layer.
    FeedForwardNorm,
    /// Its bias.
    FeedForwardNormBias,
    /// The gate of a gated feed-forward layer.
    Gate,
    /// From the width to the width of the feed-forward layer.
    Up,
    /// Its bias.
    UpBias,
    /// Back to the width, added to the residual stream.
    Down,
    /// Its bias.
    DownBias,
    /// The norm behind the last block.
    FinalNorm,
    /// Its bias.
    FinalNormBias,
    /// Logits; absent where the token embedding gives them.
    Head,
}

/// A part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelPart {
    /// From tokens and positions to vectors.
    Embedding,
    /// Attention, with its projections.
    Attention,
    /// The feed-forward layers.
    FeedForward,
    /// All norms.
    Norm,
    /// From vectors to logits.
    Head,
}

impl ModelPart {
    /// All of them, in the order of a token's way.
    pub const ALL: [ModelPart; 5] =
        [ModelPart::Embedding, ModelPart::Attention, ModelPart::FeedForward, ModelPart::Norm, ModelPart::Head];
}

impl Role {
    /// The part that the tensor belongs to.
    pub fn part(self) -> ModelPart {
        use Role::*;
        match self {
            TokenEmbedding | PositionEmbedding => ModelPart::Embedding,
            Qkv | QkvBias | Query | Key | Value | AttentionOutput | AttentionOutputBias => ModelPart::Attention,
            Gate | Up | UpBias | Down | DownBias => ModelPart::FeedForward,
            AttentionNorm | AttentionNormBias | FeedForwardNorm | FeedForwardNormBias | FinalNorm | FinalNormBias => {
                ModelPart::Norm
            }
            Head => ModelPart::Head,
        }
    }
}
