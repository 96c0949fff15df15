"""From JSON Lines of prompts and completions, or of chats, to packed shards that say which tokens are learnt."""
