"""Matching: images in, optical flow and disparity with their reverse directions out; classic or learnt."""
