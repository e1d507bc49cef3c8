//! The hash of a tree over leaves that come one after the other (RFC 6962, section 2.1): of all of them only as many
//! hashes are kept as the tree is high.

use aws_lc_rs::digest::{Context, SHA256};

type Hash = [u8; 32];

/// A tree that grows to the right.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Hashes of whole subtrees with their heights, the largest first.
    peaks: Vec<(u32, Hash)>,
}

impl Tree {
    pub(super) fn push(&mut self, leaf: &[&[u8]]) {
        let (mut height, mut hash) = (0_u32, digest(0, leaf));
        while let Some((_, left)) = self.peaks.pop_if(|(below, _)| *below == height) {
            hash = node(&left, &hash);
            height = height.saturating_add(1);
        }
        self.peaks.push((height, hash));
    }

    pub(super) fn root(mut self) -> Hash {
        let Some((_, mut root)) = self.peaks.pop() else {
            return finish(Context::new(&SHA256));
        };
        while let Some((_, left)) = self.peaks.pop() {
            root = node(&left, &root);
        }
        root
    }
}

fn node(left: &Hash, right: &Hash) -> Hash {
    digest(1, &[left, right])
}

/// The first byte tells what is hashed, so that a node is never taken for a leaf.
pub(super) fn digest(kind: u8, parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[kind]);
    for part in parts {
        context.update(part);
    }
    finish(context)
}

fn finish(context: Context) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::record::hex;

    /// As section 2.1 defines it: split at the largest power of two below the number of leaves.
    fn defined(leaves: &[Vec<u8>]) -> Hash {
        match leaves.len() {
            0 => finish(Context::new(&SHA256)),
            1 => digest(0, &[&leaves[0]]),
            count => {
                let (left, right) = leaves.split_at(count.next_power_of_two() / 2);
                node(&defined(left), &defined(right))
            }
        }
    }

    fn grown(leaves: &[Vec<u8>]) -> Hash {
        let mut tree = Tree::default();
        for leaf in leaves {
            tree.push(&[leaf]);
        }
        tree.root()
    }

    #[test]
    fn a_tree_that_grows_has_the_hash_that_the_definition_gives() {
        let leaves: Vec<Vec<u8>> = (0..70_u8).map(|number| vec![number; usize::from(number)]).collect();
        for count in 0..leaves.len() {
            assert_eq!(grown(&leaves[..count]), defined(&leaves[..count]), "{count}");
        }
    }

    /// Test vectors of the Certificate Transparency project.
    #[test]
    fn known_trees_have_their_known_hashes() {
        assert_eq!(
            hex::write(&grown(&[])),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            hex::write(&grown(&[vec![]])),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
    }
}
