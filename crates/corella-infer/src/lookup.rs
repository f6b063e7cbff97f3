//! Prompt lookup: text that repeats itself is proposed ahead, and the model only checks it.
//!
//! The last tokens are looked up earlier in the sequence; what followed there is proposed (Saxena, "Prompt Lookup
//! Decoding", 2023). A proposal counts only if the ordinary draw at its place gives the same token, so the output does
//! not change; it is the number of steps that does.

use std::collections::HashMap;

/// Lengths of the endings that are looked up, the longest first.
const LENGTHS: [usize; 2] = [4, 2];

/// Where each ending stood last, for one sequence. A token is added in constant time.
#[derive(Clone, Debug)]
pub struct Lookup {
    most: usize,
    /// Tokens to propose next: more after a proposal that came true, fewer after one that did not.
    now: usize,
    /// Tokens indexed so far.
    len: usize,
    /// For each length: ending → index of the token that followed it last.
    ends: [HashMap<Box<[u32]>, usize>; LENGTHS.len()],
}

impl Lookup {
    /// Proposes at most `most` tokens.
    pub fn new(most: usize) -> Lookup {
        Lookup { most, now: most.min(4), len: 0, ends: Default::default() }
    }

    /// The proposal after `tokens`, at most `room` of them. `tokens` only grows from call to call.
    pub fn propose(&mut self, tokens: &[u32], room: usize) -> Vec<u32> {
        if self.most == 0 {
            return Vec::new();
        }
        // The ending of all is looked up, not entered: nothing follows it yet.
        for end in self.len.max(1)..tokens.len() {
            for (length, ends) in LENGTHS.iter().zip(&mut self.ends) {
                if end >= *length {
                    ends.insert(tokens[end - length..end].into(), end);
                }
            }
        }
        self.len = tokens.len();
        for (length, ends) in LENGTHS.iter().zip(&self.ends) {
            let Some(ending) = tokens.len().checked_sub(*length).map(|at| &tokens[at..]) else { continue };
            if let Some(next) = ends.get(ending) {
                // Behind the last token the proposal repeats itself, as text with a short period does.
                let mut proposal = Vec::new();
                for at in *next..*next + self.now.min(room) {
                    proposal.push(match tokens.get(at) {
                        Some(token) => *token,
                        None => proposal[at - tokens.len()],
                    });
                }
                return proposal;
            }
        }
        Vec::new()
    }

    /// Learns how many of the proposed tokens came true.
    pub fn judge(&mut self, proposed: usize, accepted: usize) {
        if accepted == proposed {
            self.now = (self.now * 2).min(self.most);
        } else {
            self.now = (accepted + 1).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lookup;

    #[test]
    fn what_followed_the_same_ending_is_proposed() {
        let mut lookup = Lookup::new(8);
        assert_eq!(lookup.propose(&[1, 2, 3, 4, 5], 8), [0u32; 0]);
        assert_eq!(lookup.propose(&[1, 2, 3, 4, 5, 1, 2], 8), [3, 4, 5, 1]);
        lookup.judge(4, 4);
        assert_eq!(lookup.propose(&[1, 2, 3, 4, 5, 1, 2, 3, 4], 3), [5, 1, 2]);
        lookup.judge(3, 0);
        assert_eq!(lookup.propose(&[1, 2, 3, 4, 5, 1, 2, 3, 4, 9, 1, 2], 8), [3], "the last time counts");
        assert_eq!(Lookup::new(0).propose(&[1, 1, 1, 1, 1], 8), [0u32; 0]);
        assert_eq!(Lookup::new(8).propose(&[7, 7, 7], 8), [7; 4], "a period of one token");
    }
}
