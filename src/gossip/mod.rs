//! chitchat behind one door: what this node says goes in, what the others said comes out.
