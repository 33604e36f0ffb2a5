#!/bin/sh
echo nothing to do
