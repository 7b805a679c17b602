"""Throughput, memory and scaling against peers; results/ holds dated records."""
