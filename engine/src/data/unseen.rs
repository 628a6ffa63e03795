//! Unseen: the characters of a text that cannot be seen where they stand.

/// Whether a character cannot be seen where it stands: control characters, line separators, the marks that change the
/// direction of the text around them (Unicode's `Bidi_Control`), and those without a width.
pub fn is_unseen(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turns_the_text_around_it_or_has_no_width_is_unseen_and_letters_are_not() {
        for unseen in
            ['\0', '\n', '\u{7f}', '\u{85}', '\u{200b}', '\u{200d}', '\u{202e}', '\u{2067}', '\u{feff}']
        {
            assert!(is_unseen(unseen), "{unseen:?}");
        }
        for seen in ['a', ' ', '~', 'é', 'ا', '漢', '\u{a0}', '😀'] {
            assert!(!is_unseen(seen), "{seen:?}");
        }
    }
}
