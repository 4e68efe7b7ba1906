"""Followers: who reads a run's journal while it grows. A tracker is one file here and one line in its registry."""

from clew.followers.base import (
    Follower,
    FollowerConfig,
    FollowingConfig,
    Trackers,
    followers_of,
    tracker_registry,
)

__all__ = ["Follower", "FollowerConfig", "FollowingConfig", "Trackers", "followers_of", "tracker_registry"]
