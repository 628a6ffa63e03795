//! Tokens: which of a workspace's is used next, and which are set aside because Railway refused them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use secrecy::SecretString;

/// The tokens of every workspace, in the order in which they were given.
pub(crate) struct Tokens {
    all: Vec<Token>,
    next: AtomicUsize,
}

/// One token of a workspace.
pub(crate) struct Token {
    pub(crate) workspace: String,
    pub(crate) secret: SecretString,
    is_refused: AtomicBool,
}

impl Token {
    /// Railway refused it: the others of its workspace are used from now on.
    pub(crate) fn set_aside(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }
}

impl Tokens {
    pub(crate) fn new(tokens: Vec<(String, SecretString)>) -> Self {
        let token = |(workspace, secret)| Token { workspace, secret, is_refused: AtomicBool::new(false) };
        Self { all: tokens.into_iter().map(token).collect(), next: AtomicUsize::new(0) }
    }

    /// The workspaces that there are tokens for, each once.
    pub(crate) fn workspaces(&self) -> Vec<String> {
        let mut all = Vec::new();
        for token in &self.all {
            if !all.contains(&token.workspace) {
                all.push(token.workspace.clone());
            }
        }
        all
    }

    /// The tokens of a workspace in the order in which one call tries them: in turns, without those set aside. When all
    /// are, they are tried anew: a person may have mended what was wrong.
    pub(crate) fn of(&self, workspace: &str) -> Vec<&Token> {
        let all: Vec<&Token> = self.all.iter().filter(|token| token.workspace == workspace).collect();
        let mut good: Vec<&Token> =
            all.iter().copied().filter(|token| !token.is_refused.load(Ordering::Relaxed)).collect();
        if good.is_empty() {
            for token in &all {
                token.is_refused.store(false, Ordering::Relaxed);
            }
            good = all;
        }
        if !good.is_empty() {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % good.len();
            good.rotate_left(turn);
        }
        good
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn first(tokens: &Tokens) -> String {
        tokens.of("a").first().unwrap().secret.expose_secret().to_owned()
    }

    #[test]
    fn the_tokens_of_a_workspace_take_turns_and_a_refused_one_is_set_aside() {
        let given = [("a", "1"), ("b", "9"), ("a", "2"), ("a", "3")];
        let tokens =
            Tokens::new(given.map(|(workspace, token)| (workspace.to_owned(), token.into())).to_vec());
        assert_eq!(tokens.workspaces(), ["a", "b"]);
        let turns: Vec<String> = (0..6).map(|_| first(&tokens)).collect();
        assert_eq!(turns, ["1", "2", "3", "1", "2", "3"]);
        tokens.of("a").into_iter().find(|token| token.secret.expose_secret() == "2").unwrap().set_aside();
        assert!((0..6).all(|_| first(&tokens) != "2"));
        tokens.of("a").into_iter().for_each(Token::set_aside);
        assert_eq!(tokens.of("a").len(), 3, "with none left all are tried anew");
        assert!(tokens.of("c").is_empty());
    }
}
